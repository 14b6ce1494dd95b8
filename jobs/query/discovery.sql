-- Made by line-audit sql --write-views, for DuckDB's own command line: .read this file, and again to see later runs.
-- Only committed runs are seen: those with a _SUCCESS in their folder.
{% if remote %}

-- Credentials as the AWS command line finds them. Another endpoint: ENDPOINT, URL_STYLE and USE_SSL in this secret.
INSTALL httpfs;
LOAD httpfs;
INSTALL aws;
LOAD aws;
CREATE OR REPLACE SECRET line_audit (TYPE s3, PROVIDER credential_chain, SCOPE {{ bucket }});
{% endif %}

SET TimeZone = 'UTC';
-- What is read of a table's footer is kept for the next question.
SET parquet_metadata_cache = true;

SET VARIABLE audit_output = {{ pattern }};

-- Runs are <date>/<name>. Each is asked for its _SUCCESS by a pattern that only that matches: the folder of a run holds
-- many files, which need not be listed.
SET VARIABLE audit_published = (
    SELECT coalesce(list(string_split(file, '/')[-2][10:] || '/' || string_split(file, '/')[-1][:-9]), []::VARCHAR[])
    FROM glob(getvariable('audit_output') || '/results/run_date=*/*.parquet')
);
SET VARIABLE audit_committed = (
    SELECT coalesce(
        list(string_split(file, '/')[-3] || '/' || string_split(file, '/')[-2] ORDER BY file), []::VARCHAR[]
    )
    FROM glob(
        [getvariable('audit_output') || '/runs/' || run || '/_SUCCES[S]' FOR run IN getvariable('audit_published')]
    )
);
SET VARIABLE audit_checked = (
    SELECT CASE
        WHEN len(getvariable('audit_committed')) = 0 THEN error({{ output }} || ': there is no committed run')
    END
);
SET VARIABLE audit_tables = [
    getvariable('audit_output') || '/results/run_date=' || run || '.parquet'
    FOR run IN getvariable('audit_committed')
];
SET VARIABLE audit_records = (
    SELECT list(content ORDER BY filename)
    FROM read_text(
        [getvariable('audit_output') || '/runs/' || run || '/run.json' FOR run IN getvariable('audit_committed')]
    )
);
SET VARIABLE audit_queues = []::VARCHAR[];
SET VARIABLE audit_verdicts = []::VARCHAR[];

