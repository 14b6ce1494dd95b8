"""Answers on the terminal and for other programs: as a table, CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from itertools import islice
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.query.session import Row
from jobs.terminal import note
from manifests.schema import printable

ON_SCREEN = 200  # rows; more are for a file
WIDEST = 1000  # characters of a cell
BROKEN_AT = 14  # characters of a line of a cell, at least, in a table whose columns stand side by side


def show(format: str, columns: list[str], rows: Iterable[Row], target: TextIO | None = None) -> int:
    """Write the rows to standard output, or ``target``; returns how many there were, or were shown.

    format: table, csv, json or markdown. A table shows ON_SCREEN rows, and says so if there are more; where its columns
    find no place side by side, every row is a list of them. The others have all, as values and not as markup, and are
    written as they come.
    """
    return _WRITERS[format](columns, rows, target or sys.stdout)


def _table(columns: list[str], rows: Iterable[Row], target: TextIO) -> int:
    remaining = iter(rows)
    shown = list(islice(remaining, ON_SCREEN))
    numbers = [
        all(isinstance(row[i], int | float) and not isinstance(row[i], bool) for row in shown if row[i] is not None)
        for i in range(len(columns))
    ]
    names = [printable(column) for column in columns]
    cells = [[_lines(_short(value)) for value in row] for row in shown]
    console = Console(file=target, highlight=False)
    if _needed(names, cells) > console.width:
        for place, row in enumerate(cells, 1):
            console.print(_record(names, row, place), markup=False)
    else:
        table = Table()
        for name, number in zip(names, numbers, strict=True):
            table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        console.print(table, markup=False)
    if next(remaining, None) is not None:
        note(f"only the first {ON_SCREEN} rows are shown; --format csv writes all, LIMIT asks for fewer")
    return len(shown)


def _needed(names: list[str], cells: list[list[str]]) -> int:
    """Characters that the columns need side by side, long ones broken over lines."""
    lengths = [[len(name), *(len(row[i]) for row in cells)] for i, name in enumerate(names)]
    return 1 + sum(min(max(of_column), BROKEN_AT) + 3 for of_column in lengths)


def _record(names: list[str], row: list[str], place: int) -> Table:
    """A row as a list: a line for each column."""
    table = Table(title=f"row {place}", title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, cell in zip(names, row, strict=True):
        table.add_row(Text(name), Text(cell))
    return table


def _short(value: Any) -> str:
    """For a person: six digits of a number that has more."""
    return f"{value:.6g}" if isinstance(value, float) and 1e-4 <= abs(value) < 1e6 else _text(value)


def _csv(columns: list[str], rows: Iterable[Row], target: TextIO) -> int:
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow(["" if value is None else _text(value) for value in row])
        count += 1
    return count


def _json(columns: list[str], rows: Iterable[Row], target: TextIO) -> int:
    names, count = list(_unique(columns)), 0
    target.write("[")
    for row in rows:
        target.write(",\n " if count else "\n ")
        target.write(json.dumps(dict(zip(names, map(_json_value, row), strict=True)), ensure_ascii=False))
        count += 1
    target.write("\n]\n" if count else "]\n")
    return count


def _markdown(columns: list[str], rows: Iterable[Row], target: TextIO) -> int:
    count = 0
    target.write(f"| {' | '.join(map(_cell, columns))} |\n|{' --- |' * len(columns)}\n")
    for row in rows:
        target.write(f"| {' | '.join(_cell(_text(value)) for value in row)} |\n")
        count += 1
    return count


_WRITERS: dict[str, Callable[[list[str], Iterable[Row], TextIO], int]] = {
    "table": _table,
    "csv": _csv,
    "json": _json,
    "markdown": _markdown,
}


def _lines(text: str) -> str:
    return "\n".join(printable(line, WIDEST) for line in text.split("\n"))


def _cell(text: str) -> str:
    shown = printable(text, WIDEST)
    for character in "\\`*_[]<>|&":
        shown = shown.replace(character, f"\\{character}")
    return shown


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict | tuple):
        return json.dumps(_json_value(value), ensure_ascii=False)
    return str(value)


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no word for them
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    if isinstance(value, dict):
        return {_text(key): _json_value(one) for key, one in value.items()}
    return _text(value)


def _unique(columns: list[str]) -> Iterator[str]:
    """Names of which no two are the same: an object of JSON would lose one of them."""
    taken: set[str] = set()
    for column in columns:
        name, number = column, 1
        while name in taken:
            number += 1
            name = f"{column}_{number}"
        taken.add(name)
        yield name
