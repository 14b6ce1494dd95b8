"""What is new, gone or another object in a manifest since another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
from pydantic import BaseModel

from manifests.database import database

CHANGES = ("new", "gone", "changed")
# An object is the one that a uri names; another version, ETag or size makes it another one. Where one of the manifests
# does not know them they say nothing.
_DIFFERENCES = """
    CREATE TEMP TABLE differences AS
    SELECT
        CASE WHEN a.uri IS NULL THEN 'new' WHEN b.uri IS NULL THEN 'gone' ELSE 'changed' END AS change,
        coalesce(b.uri, a.uri) AS uri, coalesce(b.line, a.line) AS line,
        a.version_id AS version_id_before, b.version_id AS version_id,
        a.etag AS etag_before, b.etag AS etag, a.size AS size_before, b.size AS size,
        coalesce(b.captured_at, a.captured_at) AS captured_at
    FROM a FULL JOIN b ON a.uri = b.uri
    WHERE a.uri IS NULL OR b.uri IS NULL
        OR a.version_id <> b.version_id OR a.etag <> b.etag OR a.size <> b.size
"""


class Difference(BaseModel):
    """Images by what became of them, and so of each line. bad: bad rows of either, which are not compared."""

    new: int
    gone: int
    changed: int
    same: int
    by_line: dict[str, dict[str, int]]
    bad: tuple[int, int]


def diff(before: Sequence[Path], after: Sequence[Path], work: Path, output: Path | None = None) -> Difference:
    """Compare two frozen manifests, given by their parts. work: folder for what does not fit into memory. output: a
    Parquet file to write with a row for each image that is new, gone or changed, by uri."""
    with database(work, "diff") as connection:
        for name, parts in (("a", before), ("b", after)):
            _view(connection, name, parts)
        connection.execute(_DIFFERENCES)
        found = connection.execute(
            "SELECT line, change, count(*) FROM differences GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        totals = dict.fromkeys(CHANGES, 0)
        by_line: dict[str, dict[str, int]] = {}
        for line, change, count in found:
            totals[change] += count
            by_line.setdefault(line or "", dict.fromkeys(CHANGES, 0))[change] = count
        rows, *bad = (_count(connection, table) for table in ("b", "a_bad", "b_bad"))
        if output is not None:
            connection.table("differences").order("uri").write_parquet(str(output), compression="zstd")
    same = rows - totals["new"] - totals["changed"]
    return Difference(**totals, same=same, by_line=by_line, bad=(bad[0], bad[1]))


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)


def _view(connection: duckdb.DuckDBPyConnection, name: str, parts: Sequence[Path]) -> None:
    table = connection.read_parquet([str(part) for part in parts], hive_partitioning=False)
    table.filter("problem_code IS NOT NULL AND problem_code <> 'duplicate'").create_view(f"{name}_bad")
    size = "size" if "size" in table.columns else "CAST(NULL AS BIGINT) AS size"
    # The same uri may come in several versions; the last one in the manifest is what an audit of it would see last.
    good = table.filter("problem_code IS NULL").project(f"uri, version_id, etag, line, captured_at, row, {size}")
    good.create_view(f"{name}_good")
    last = f"SELECT * FROM {name}_good QUALIFY row_number() OVER (PARTITION BY uri ORDER BY row DESC) = 1"
    connection.execute(f"CREATE VIEW {name} AS {last}")
