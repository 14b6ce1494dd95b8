"""What a person at the terminal sees: answers on standard output; progress, warnings and errors on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(stderr=True, highlight=False)  # progress, warnings, errors
output = Console(highlight=False)  # what was asked for
CELL = 2000  # characters; S3 has keys of 1024


def complain(message: str) -> None:
    """An error for the person at the terminal."""
    console.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True)
    sys.stderr.flush()


def note(message: str) -> None:
    """A warning for the person at the terminal."""
    console.print(f"[yellow]note:[/] {_plain(message)}", soft_wrap=True)


def say(text: str) -> None:
    """A line of the answer, on standard output. As text, not markup, and not broken."""
    output.print(text, markup=False, soft_wrap=True)


def print_tables(tables: Iterable[tuple[str, list[str], list[list[str]]]]) -> None:
    """Title, headings and cells of each table, on standard output. As text, not markup: names come from others."""
    from manifests.schema import printable  # Arrow, which --help does not wait for

    for title, headings, cells in tables:
        table = Table(title=Text(title, style="table.title"), title_justify="left")
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=not index, overflow="fold")
        for row in cells:
            table.add_row(*(Text(printable(cell, CELL)) for cell in row))
        output.print(table, markup=False)


def _plain(message: str) -> str:
    return message.replace("[", r"\[")
