"""An inspection of a manifest as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from jobs.manifest.inspect import Counts, Inspection
from manifests.schema import printable


def inspection_tables(found: Inspection) -> Iterator[Table]:
    """All that is known of a manifest."""
    for name, counts in found.counts.items():
        if counts.distinct:
            yield _counted(name, counts)
    if found.sizes:
        table = Table(title=f"sizes, {found.bytes or 0:,} bytes in all", title_justify="left")
        table.add_column("up to")
        table.add_column("images", justify="right")
        for end, count in found.sizes:
            table.add_row("more" if end is None else _size(end), f"{count:,}")
        yield table
    if found.columns:
        table = Table(title="further columns", title_justify="left")
        table.add_column("column")
        table.add_column("type")
        for column, kind in found.columns.items():
            table.add_row(plain(column), plain(kind))
        yield table
    if found.problems:
        yield problem_counts(found)
        yield first_problems(found)


def _counted(name: str, counts: Counts) -> Table:
    more = counts.distinct - sum(value is not None for value, _ in counts.values)
    table = Table(title=name, title_justify="left", caption=f"and {more:,} more" if more > 0 else None)
    table.add_column(name)
    table.add_column("images", justify="right")
    for value, count in counts.values:
        table.add_row("none" if value is None else plain(value), f"{count:,}")
    return table


def problem_counts(found: Inspection) -> Table:
    """Rows by code of their problem."""
    table = Table(title="problems", title_justify="left")
    table.add_column("code")
    table.add_column("rows", justify="right")
    for code, count in found.problems.items():
        table.add_row(code, f"{count:,}")
    return table


def first_problems(found: Inspection) -> Table:
    """Some bad rows with their places."""
    table = Table(title="bad rows, the first ones", title_justify="left")
    for heading in ("row", "code", "problem"):
        table.add_column(heading, overflow="fold")
    for problem in found.first_problems:
        table.add_row(f"{problem.row:,}", problem.code, plain(problem.message))
    return table


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count // 2**10} KiB"


def plain(text: str) -> str:
    """For a cell of a table. Names come from whoever wrote a manifest: no commands of a terminal."""
    return printable(text)
