"""What the person sees of a job: the lines of its log, and on a terminal a bar below them."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.text import Text

from jobs.audit.progress import Progress, bar
from jobs.submit.job import Status
from jobs.terminal import console

_LONGEST = 20_000  # characters of a line


class Screen:
    """A context. on: where to, standard error unless given."""

    def __init__(self, on: Console = console):
        self._console = on
        self._bar = bar(on, shown=on.is_terminal)
        self._task = self._bar.add_task("submitted", total=None, seen="")

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def state(self, status: Status) -> None:
        """The job's, as the cluster tells it."""
        self._bar.update(self._task, description=status.lower())

    def line(self, line: str) -> None:
        """A line of the log. What would move the cursor or change the terminal is escaped; colours stay."""
        at = Progress.read(line)
        if at is not None:
            self._bar.update(self._task, completed=at.done, total=at.rows, seen=at.seen)
            if self._console.is_terminal:
                return
        self._console.print(_safe(line), soft_wrap=True)


def _safe(line: str) -> Text:
    from manifests.schema import printable  # Arrow, which --help does not wait for

    text = Text.from_ansi(line)
    plain = text.plain.expandtabs(8)
    return text if plain.isprintable() and len(plain) <= _LONGEST else Text(printable(plain, _LONGEST))
