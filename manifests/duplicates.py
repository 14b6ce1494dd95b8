"""Images that a manifest lists more than once, found outside Python's memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from manifests.database import database

_QUERY = """
    COPY (
        SELECT ids.row, firsts.first
        FROM read_parquet($ids) AS ids
        JOIN (
            SELECT image_id, min(row) AS first FROM read_parquet($ids) GROUP BY image_id HAVING count(*) > 1
        ) AS firsts
        ON ids.image_id = firsts.image_id
        WHERE ids.row <> firsts.first
        ORDER BY ids.row
    ) TO '{found}' (FORMAT parquet)
"""


def find_duplicates(ids: Path, work: Path) -> Iterator[tuple[int, int]]:
    """(row, first row with the same image_id) of every row that is not the first, ordered by row.

    ids: a Parquet file with row (int64) and image_id (string). work: a folder of our own, for what does not
    fit into memory.
    """
    found = work / "duplicates.parquet"
    with database(work, "duplicates") as connection:
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(_QUERY.format(found=str(found).replace("'", "''")), {"ids": str(ids)})
    with pq.ParquetFile(found) as file:
        for batch in file.iter_batches():
            yield from zip(batch["row"].to_pylist(), batch["first"].to_pylist(), strict=True)
