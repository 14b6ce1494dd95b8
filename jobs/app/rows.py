"""Rows of a run's table: filtered, worst first, a page at a time. Only the page is held in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

PAGE_ROWS = 50
NEIGHBOURS = 3
MOST_CHOICES = 500
FILTERS = ("category", "line", "camera", "decision")
# rowid counts from the worst row. row: position in the published table; image_id would not do, a duplicate has it too.
# It is counted here and not asked of DuckDB, whose file_row_number may be the name of a column of the manifest.
_COLUMNS = "row, image_id, category, line, camera, captured_at, decision, score, margin"
_RANK = """
    CREATE TABLE ranked AS
    SELECT row_number() OVER () - 1 AS row, image_id, coalesce(category, declared_category) AS category, line, camera,
           captured_at, decision, score, margin
    FROM read_parquet($path, hive_partitioning = false)
    ORDER BY margin DESC NULLS LAST, row
"""
_ROW = "SELECT * FROM read_parquet($path, hive_partitioning = false) LIMIT 1 OFFSET {row}"
_NEAR = """
    SELECT {columns} FROM ranked
    WHERE category = $category AND score IS NOT NULL AND rowid {side} (SELECT rowid FROM ranked WHERE row = $row)
    ORDER BY rowid {order} LIMIT {count}
"""

Row = dict[str, Any]
# By column, the values that are wanted, None among them for rows that have none; an empty one wants all.
Filters = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Among:
    """Rows by what is known of their images elsewhere: those of ``images``, or all others. Failed rows are neither."""

    images: Collection[str]
    others: bool = False


@dataclass(frozen=True)
class Page:
    """Rows of one page. total: rows that the filters leave; number: of the page, from 1; pages: how many there are."""

    rows: list[Row]
    total: int
    number: int
    pages: int


def rank(connection: duckdb.DuckDBPyConnection, table: Path) -> None:
    """Make ``ranked`` of a published table: what is filtered and listed of each row, sorted once."""
    connection.execute(_RANK, {"path": str(table)})


def choices(connection: duckdb.DuckDBPyConnection, column: str) -> list[str | None]:
    """The values of a column of FILTERS, None last; not more than MOST_CHOICES."""
    found = connection.cursor().execute(
        f"SELECT DISTINCT {column} FROM ranked ORDER BY {column} NULLS LAST LIMIT {MOST_CHOICES}"
    )
    return [value for (value,) in found.fetchall()]


def page(connection: duckdb.DuckDBPyConnection, filters: Filters, number: int, among: Sequence[Among] = ()) -> Page:
    """A page of the rows that the filters leave, and each of ``among``, worst first; the nearest one if there is none
    of that number."""
    where, values = _where(filters, among)
    cursor = connection.cursor()
    (total,) = _one(cursor.execute(f"SELECT count(*) FROM ranked{where}", values))
    pages = max(1, -(-total // PAGE_ROWS))
    number = min(max(1, number), pages)
    found = cursor.execute(
        f"SELECT {_COLUMNS} FROM ranked{where} ORDER BY rowid LIMIT {PAGE_ROWS} OFFSET {(number - 1) * PAGE_ROWS}",
        values,
    )
    return Page(_rows(found), total, number, pages)


def whole_row(connection: duckdb.DuckDBPyConnection, table: Path, row: int) -> Row | None:
    """Every column of a row of the published table, or None if it has no such row."""
    found = _rows(connection.cursor().execute(_ROW.format(row=row), {"path": str(table)}))
    return found[0] if found else None


def neighbours(connection: duckdb.DuckDBPyConnection, row: int, category: str | None) -> list[Row]:
    """The rows of a category next in score to one of its rows, NEIGHBOURS above and as many below, worst first."""
    found = []
    for side, order in (("<", "DESC"), (">", "ASC")):
        sql = _NEAR.format(columns=_COLUMNS, side=side, order=order, count=NEIGHBOURS)
        rows = _rows(connection.cursor().execute(sql, {"category": category, "row": row}))
        found += rows[::-1] if order == "DESC" else rows
    return found


def _where(filters: Filters, among: Sequence[Among]) -> tuple[str, list[object]]:
    """The condition, and what its question marks stand for."""
    conditions, values = [], list[object]()
    for column in FILTERS:
        wanted = filters.get(column) or ()
        given = [value for value in wanted if value is not None]
        either = [f"{column} IN ({', '.join('?' * len(given))})"] if given else []
        either += [f"{column} IS NULL"] if len(given) < len(wanted) else []
        if either:
            conditions.append(f"({' OR '.join(either)})")
            values += given
    for one in among:
        conditions.append(f"decision <> 'failed' AND image_id {'NOT ' if one.others else ''}IN (SELECT unnest(?))")
        values.append(list(one.images))
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _rows(found: duckdb.DuckDBPyConnection) -> list[Row]:
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, values, strict=True)) for values in found.fetchall()]


def _one(found: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    row = found.fetchone()
    assert row is not None
    return tuple(row)
