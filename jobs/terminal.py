"""What a person at the terminal sees: answers on standard output; progress, warnings and errors on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.monitoring import logs
from jobs.visible import visible
from manifests.secrets import redacted

# Columns of what is no terminal, as the log of a submitted job, where COLUMNS does not say otherwise. Rich takes
# 80 there, which breaks numbers in tables apart.
WIDE = 160


class _Console(Console):
    """A console whose reader may go away, as head does: the command goes on, and ends with its own exit code."""

    def on_broken_pipe(self) -> None:
        """What is written from now on goes nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _console(stream: TextIO, *, stderr: bool) -> Console:
    # Names, addresses and messages come from others: what is printed is text, neither markup nor a name of an emoji.
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    return _Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


console = _console(sys.stderr, stderr=True)  # progress, warnings, errors
output = _console(sys.stdout, stderr=False)  # what was asked for
CELL = 2000  # characters; S3 has keys of 1024
_log = logging.getLogger(__name__)


def complain(message: str) -> None:
    """An error for the person at the terminal, or an event of the log where that is JSON; without credentials."""
    if logs.structured():
        _log.error(redacted(message))
        return
    console.print(Text.assemble(("error:", "bold red"), " ", visible(redacted(message))), soft_wrap=True)
    sys.stderr.flush()


def note(message: str) -> None:
    """A warning for the person at the terminal, or an event of the log where that is JSON; without credentials."""
    if logs.structured():
        _log.warning(redacted(message))
        return
    console.print(Text.assemble(("note:", "yellow"), " ", visible(redacted(message))), soft_wrap=True)


def say(text: str) -> None:
    """A line of the answer, on standard output, not broken."""
    output.print(visible(text), soft_wrap=True)


def print_tables(tables: Iterable[tuple[str, list[str], list[list[str]]]]) -> None:
    """Title, headings and cells of each table, on standard output."""
    from manifests.schema import printable  # Arrow, which --help does not wait for

    for title, headings, cells in tables:
        table = Table(title=Text(title, style="table.title"), title_justify="left")
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=not index, overflow="fold")
        for row in cells:
            table.add_row(*(Text(printable(cell, CELL)) for cell in row))
        output.print(table)
