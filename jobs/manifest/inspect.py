"""What a manifest holds, in numbers: counts by column, sizes, formats, problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel

from manifests.database import database
from manifests.freeze import FrozenManifest

# Upper ends of the classes of sizes, in bytes; the last one is what an audit reads at most of an image.
SIZES = (2**14, 2**16, 2**18, 2**20, 2**22, 2**24, 2**26)
_COLUMNS = {
    "line": "line",
    "camera": "camera",
    "declared_category": "declared_category",
    "day": "CAST(timezone('UTC', captured_at) AS DATE)",
    "format": r"nullif(lower(regexp_extract(uri, '\.([A-Za-z0-9]{1,5})$', 1)), '')",
    "place": "nullif(regexp_extract(uri, '^([A-Za-z0-9+.-]+://[^/]+|/[^/]+)', 1), '')",
}


class Counts(BaseModel):
    """The most frequent values of a column with their rows; None is a row without one. distinct: how many there are."""

    distinct: int
    values: list[tuple[str | None, int]]


class Problem(BaseModel):
    """A bad row. row: its place in the manifest, from 0."""

    row: int
    code: str
    message: str


class Inspection(BaseModel):
    """rows: all of them. columns: further ones with their types. sizes: rows up to so many bytes (None: more), empty if
    the manifest has no sizes. left_out: rows by the filter that left them out."""

    rows: int
    good: int
    columns: dict[str, str]
    counts: dict[str, Counts]
    captured: tuple[str, str] | None
    bytes: int | None
    sizes: list[tuple[int | None, int]]
    problems: dict[str, int]
    first_problems: list[Problem]
    left_out: dict[str, int]


def inspect(
    frozen: FrozenManifest, parts: Sequence[Path], work: Path, most: int = 20, problems: int = 20
) -> Inspection:
    """The figures of a frozen manifest. work: folder for what does not fit into memory; most: values of a column that
    are told; problems: bad rows that are."""
    with database(work, "inspect") as connection:
        connection.read_parquet([str(part) for part in parts], hive_partitioning=False).create_view("manifest")
        counts = {name: _counts(connection, expression, most) for name, expression in _COLUMNS.items()}
        first, last = _one(connection, "SELECT min(captured_at), max(captured_at) FROM manifest")
        bad = connection.execute(
            "SELECT row, problem_code, problem_message FROM manifest "
            "WHERE problem_code IS NOT NULL ORDER BY row LIMIT $n",
            {"n": problems},
        ).fetchall()
        size, sizes = _sizes(connection) if "size" in frozen.extras.names else (None, [])
    return Inspection(
        rows=frozen.rows,
        good=frozen.rows - sum(frozen.problems.values()),
        columns={field.name: str(field.type) for field in frozen.extras},
        counts=counts,
        captured=None if first is None else (first.isoformat(), last.isoformat()),
        bytes=size,
        sizes=sizes,
        problems=frozen.problems,
        first_problems=[Problem(row=row, code=code, message=message) for row, code, message in bad],
        left_out=frozen.left_out,
    )


def _counts(connection: duckdb.DuckDBPyConnection, expression: str, most: int) -> Counts:
    found = connection.execute(
        f"SELECT CAST({expression} AS VARCHAR) AS value, count(*) AS n FROM manifest "
        f"GROUP BY ALL ORDER BY n DESC, value NULLS LAST LIMIT {most}"
    ).fetchall()
    (distinct,) = _one(connection, f"SELECT count(DISTINCT {expression}) FROM manifest")
    return Counts(distinct=distinct, values=found)


def _sizes(connection: duckdb.DuckDBPyConnection) -> tuple[int, list[tuple[int | None, int]]]:
    total, *rows = _one(
        connection,
        "SELECT coalesce(sum(size), 0), "
        + ", ".join(f"count(*) FILTER (size <= {end})" for end in SIZES)
        + ", count(size) FROM manifest",
    )
    below = [0, *rows]
    steps = [after - before for before, after in zip(below, rows, strict=False)]
    return int(total), [*zip(SIZES, steps, strict=False), (None, steps[-1])]


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (found,) = connection.execute(query).fetchall()
    return tuple(found)
