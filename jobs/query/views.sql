-- Views over the committed runs of an output. They read what these variables of the session name:
--   audit_tables    VARCHAR[]  their published tables, <output>/results/run_date=<date>/<name>.parquet
--   audit_records   VARCHAR[]  the text of run.json of each
--   audit_queues    VARCHAR[]  their review queues, <output>/runs/<date>/<name>/review/queue-<version>.csv
--   audit_verdicts  VARCHAR[]  the verdicts that were imported, <output>/runs/<date>/<name>/review/verdicts.csv

-- Every published row, with the run's date and name. A column that a night does not have is null in its rows.
CREATE OR REPLACE TEMP VIEW results AS
SELECT {{ run_date }} AS run_date,
       string_split(line_audit_file, '/')[-1][:-9] AS run_name,
       COLUMNS(lambda c: lower(c) NOT IN ('run_date', 'run_name', 'line_audit_file'))
FROM read_parquet(getvariable('audit_tables'), {{ reading }}, filename = 'line_audit_file');

-- One row for each run. Rates are shares: failed of all rows, anomalous and review of the rows that were scored.
CREATE OR REPLACE TEMP VIEW runs AS
WITH told AS (SELECT unnest(getvariable('audit_records')) AS record),
     counted AS (
         SELECT record,
                (record ->> '$.counts.rows')::BIGINT AS images,
                coalesce((record ->> '$.counts.status.scored')::BIGINT, 0) AS scored,
                coalesce((record ->> '$.counts.status.failed')::BIGINT, 0) AS failed,
                coalesce((record ->> '$.counts.decisions.normal')::BIGINT, 0) AS normal,
                coalesce((record ->> '$.counts.decisions.anomalous')::BIGINT, 0) AS anomalous,
                coalesce((record ->> '$.counts.decisions.review')::BIGINT, 0) AS review
         FROM told
     )
SELECT split_part(record ->> '$.run_id', '/', 1)::DATE AS run_date,
       split_part(record ->> '$.run_id', '/', 2) AS run_name,
       record ->> '$.run_id' AS run_id,
       1 + coalesce(json_array_length(record, '$.retries'), 0)
         + coalesce(json_array_length(record, '$.rethresholds'), 0) AS version,
       (record ->> '$.created_at')::TIMESTAMPTZ AS created_at,
       (record ->> '$.finished_at')::TIMESTAMPTZ AS finished_at,
       (record ->> '$.timings.seconds')::DOUBLE AS seconds,
       (record ->> '$.timings.images_per_second')::DOUBLE AS images_per_second,
       images, scored, failed, normal, anomalous, review,
       failed / nullif(images, 0) AS failed_rate,
       anomalous / nullif(scored, 0) AS anomalous_rate,
       review / nullif(scored, 0) AS review_rate,
       (record ->> '$.timings.node_seconds')::DOUBLE AS node_seconds,
       (record ->> '$.timings.cost.total')::DOUBLE AS cost,
       (record ->> '$.timings.cost.per_1000_images')::DOUBLE AS cost_per_1000_images,
       record ->> '$.timings.limiting.limiting' AS limiting_stage,
       (record ->> '$.exit_code')::INTEGER AS exit_code,
       record ->> '$.exit_reason' AS exit_reason,
       record ->> '$.manifest' AS manifest,
       record ->> '$.bundle' AS bundle,
       record ->> '$.parts.bundle' AS bundle_digest,
       record ->> '$.parts.precision' AS precision,
       record ->> '$.device' AS device,
       (record ->> '$.starts')::INTEGER AS starts,
       coalesce(json_array_length(record, '$.retries'), 0) AS retries,
       coalesce(json_array_length(record, '$.rethresholds'), 0) AS rethresholds,
       record ->> '$.unfinished.command' AS unfinished
FROM counted
ORDER BY run_date, run_name;

-- The rows that failed, with the reason.
CREATE OR REPLACE TEMP VIEW failures AS
SELECT run_date, run_name, line, camera, coalesce(category, declared_category) AS category, error_stage, error_code,
       error_message, attempts, captured_at, image_id, uri
FROM results
WHERE status = 'failed';

-- The 100 highest margins of each line and run; rank 1 is the highest.
CREATE OR REPLACE TEMP VIEW worst_by_line AS
SELECT run_date, run_name, line,
       row_number() OVER (PARTITION BY run_date, run_name, line ORDER BY margin DESC, image_id) AS rank,
       camera, category, margin, score, threshold, decision, decision_reason, captured_at, peak_x, peak_y, image_id,
       uri, overlay_path
FROM results
WHERE margin IS NOT NULL
QUALIFY rank <= 100
ORDER BY run_date, run_name, line, rank;

-- Rates by run, line, camera and category, as in runs. Of rows that failed before they were routed, the category is the
-- declared one.
CREATE OR REPLACE TEMP VIEW nightly_rates AS
WITH counted AS (
    SELECT run_date, run_name, line, camera, coalesce(category, declared_category) AS category,
           count(*) AS images,
           count(*) FILTER (status = 'scored') AS scored,
           count(*) FILTER (status = 'failed') AS failed,
           count(*) FILTER (decision = 'anomalous') AS anomalous,
           count(*) FILTER (decision = 'review') AS review
    FROM results
    GROUP BY ALL
)
SELECT *,
       failed / images AS failed_rate,
       anomalous / nullif(scored, 0) AS anomalous_rate,
       review / nullif(scored, 0) AS review_rate
FROM counted
ORDER BY run_date, run_name, line, camera, category;

-- The queue of the published version of each run. verdict: good or defective once it has been imported.
CREATE OR REPLACE TEMP VIEW review_queue AS
WITH queued AS (
         FROM query(CASE WHEN len(getvariable('audit_queues')) > 0 THEN $$
             SELECT string_split(line_audit_file, '/')[-4] || '/' || string_split(line_audit_file, '/')[-3] AS run_id,
                    image_id, uri, category, decision, decision_reason, score, threshold, margin, p_value,
                    overlay_path, nearest, random, version, passed
             FROM read_csv(getvariable('audit_queues'), header = true, all_varchar = true, union_by_name = true,
                           quote = '"', escape = '"', filename = 'line_audit_file')
         $$ ELSE $$
             SELECT unnest([]::VARCHAR[]) AS run_id, '' AS image_id, '' AS uri, '' AS category, '' AS decision,
                    '' AS decision_reason, '' AS score, '' AS threshold, '' AS margin, '' AS p_value,
                    '' AS overlay_path, '' AS nearest, '' AS random, '' AS version, '' AS passed
         $$ END)
     ),
     judged AS (
         FROM query(CASE WHEN len(getvariable('audit_verdicts')) > 0 THEN $$
             SELECT string_split(line_audit_file, '/')[-4] || '/' || string_split(line_audit_file, '/')[-3] AS run_id,
                    image_id, verdict
             FROM read_csv(getvariable('audit_verdicts'), header = true, delim = ',', quote = '"', escape = '"',
                           columns = {'image_id': 'VARCHAR', 'verdict': 'VARCHAR'}, filename = 'line_audit_file')
         $$ ELSE $$
             SELECT unnest([]::VARCHAR[]) AS run_id, '' AS image_id, '' AS verdict
         $$ END)
     )
-- A spreadsheet may have written numbers its own way; those are null here.
SELECT runs.run_date, runs.run_name, runs.version, queued.image_id, uri, category, decision, decision_reason,
       TRY_CAST(score AS DOUBLE) AS score, TRY_CAST(threshold AS DOUBLE) AS threshold,
       TRY_CAST(margin AS DOUBLE) AS margin, TRY_CAST(p_value AS DOUBLE) AS p_value, overlay_path,
       TRY_CAST(nearest AS BOOLEAN) AS nearest, TRY_CAST(random AS BOOLEAN) AS random,
       TRY_CAST(passed AS BIGINT) AS passed, verdict
FROM queued
JOIN runs ON runs.run_id = queued.run_id AND runs.version = TRY_CAST(queued.version AS BIGINT)
LEFT JOIN judged ON judged.run_id = queued.run_id AND judged.image_id = queued.image_id
ORDER BY runs.run_date, runs.run_name, category, TRY_CAST(queued.margin AS DOUBLE) DESC, queued.image_id;

-- Rows with pictures, worst first.
CREATE OR REPLACE TEMP VIEW heatmaps AS
SELECT run_date, run_name, line, camera, category, decision, margin, peak_x, peak_y, image_id, uri, heatmap_path,
       overlay_path
FROM results
WHERE heatmap_path IS NOT NULL OR overlay_path IS NOT NULL
ORDER BY margin DESC NULLS LAST, image_id;
