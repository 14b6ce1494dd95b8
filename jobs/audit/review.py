"""The review queue of a run: what people are asked to look at, so that escapes can be told honestly.

The rows nearest to their threshold teach most about it; a random sample of the parts that passed is the only honest
estimate of how many defective ones do.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

NEAREST = RANDOM = 50
# run_id, version of the results and number of parts that passed in it: what the random sample is one of. The reviewer
# fills in the last one.
COLUMNS = (
    "image_id",
    "uri",
    "category",
    "decision",
    "decision_reason",
    "score",
    "threshold",
    "margin",
    "p_value",
    "overlay_path",
    "nearest",
    "random",
    "run_id",
    "version",
    "passed",
    "verdict",
)
# Chosen by a digest: the same run asks for the same images again, and a smaller sample is part of a larger one. As good
# as random for parts that come off a line, but no secret: image_id and run_id can be told in advance.
# A spreadsheet would take what begins with one of these characters for a formula.
_QUEUE = """
    COPY (
        WITH scored AS (SELECT * FROM rows WHERE score IS NOT NULL),
             near AS (SELECT image_id FROM scored ORDER BY abs(margin - 1), image_id LIMIT $nearest),
             chosen AS (
                 SELECT image_id FROM scored WHERE decision = 'normal'
                 ORDER BY md5(image_id || '/' || $run_id), image_id LIMIT $random
             )
        SELECT image_id, CASE WHEN regexp_matches(uri, '^[=+@\\t\\r-]') THEN '''' || uri ELSE uri END AS uri,
               category, decision, decision_reason, score, threshold, margin, p_value, overlay_path,
               image_id IN (FROM near) AS nearest, image_id IN (FROM chosen) AS random,
               $run_id AS run_id, $version AS version,
               (SELECT count(*) FROM scored WHERE decision = 'normal') AS passed, '' AS verdict
        FROM scored WHERE image_id IN (FROM near) OR image_id IN (FROM chosen)
        ORDER BY category, margin DESC, image_id
    ) TO '{path}' (FORMAT csv, HEADER)
"""


def write_queue(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    version: int,
    path: Path,
    nearest: int = NEAREST,
    random: int = RANDOM,
) -> None:
    """Write the queue of the result rows in ``rows``, a table or a view, as CSV.

    version: of the results. nearest: so many scored rows whose margin is nearest to 1. random: so many of those that
    passed.
    """
    values = {"nearest": nearest, "random": random, "run_id": run_id, "version": version}
    connection.execute(_QUEUE.format(path=str(path).replace("'", "''")), values)
