"""How far an audit is: a bar on a terminal, and in a log lines that ``line-audit submit`` draws the same bar from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich import progress as rich
from rich.console import Console

_LINE = re.compile(r"progress: ([\d,]+) of ([\d,]+) images(?: \((.*)\))?")


@dataclass(frozen=True)
class Progress:
    """done: rows whose shards are written, of all ``rows`` of the run. seen: what this start found, in words."""

    done: int
    rows: int
    seen: str = ""

    def line(self) -> str:
        """For a log."""
        return f"progress: {self.done:,} of {self.rows:,} images" + (f" ({self.seen})" if self.seen else "")

    @classmethod
    def read(cls, line: str) -> Progress | None:
        """What a line of a log tells; None if it is another one."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            return None
        done, rows = (int(found[i].replace(",", "")) for i in (1, 2))
        return cls(done, rows, found[3] or "")


def bar(console: Console, *, shown: bool) -> rich.Progress:
    """A bar, if it is shown. Its tasks need the field ``seen``, the text at its end."""
    return rich.Progress(
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[seen]}", markup=False),
        console=console,
        disable=not shown,
    )
