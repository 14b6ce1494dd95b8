
-- The files of review_queue, after the views: making that one would open all of them.
-- Names that were found are no patterns, whatever characters they have.
SET VARIABLE audit_queues = (
    SELECT coalesce(list(replace(replace(replace(file, '[', '[[]'), '*', '[*]'), '?', '[?]')), []::VARCHAR[])
    FROM glob(
        [
            getvariable('audit_output') || '/runs/' || run || '/review/queue-*.csv'
            FOR run IN getvariable('audit_committed')
        ]
    )
);
SET VARIABLE audit_verdicts = (
    SELECT coalesce(list(replace(replace(replace(file, '[', '[[]'), '*', '[*]'), '?', '[?]')), []::VARCHAR[])
    FROM glob(
        [
            getvariable('audit_output') || '/runs/' || run || '/review/verdicts.cs[v]'
            FOR run IN getvariable('audit_committed')
        ]
    )
);
