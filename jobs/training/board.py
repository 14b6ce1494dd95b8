"""Where training tasks write how far they are. A module of its own: its process needs no torch."""

from __future__ import annotations

# task name -> (stage, done, total)
Board = dict[str, tuple[str, int, int]]


class ProgressBoard:
    """An actor on which tasks write how far they are, and the driver reads."""

    def __init__(self) -> None:
        self.lines: Board = {}
        self.fits: dict[str, list[int]] = {}

    def write(self, task: str, stage: str, done: int, total: int) -> None:
        """Set a task's line."""
        self.lines[task] = (stage, done, total)

    def fit(self, task: str, number: int, of: int, epochs: int, done: int) -> None:
        """Set the line of a task that needs so many fits, some side by side, from how far one of them is.

        A fit that is begun again, on another node, does not take back what was told.
        """
        fits = self.fits.setdefault(task, [0] * of)
        fits[number] = max(fits[number], done)
        stage = f"epochs of {of} fits"
        if self.lines.get(task, (stage,))[0] == stage:  # what comes late does not hide what follows
            self.lines[task] = (stage, sum(fits), of * epochs)

    def read(self) -> Board:
        """All lines: task to (stage, done, total)."""
        return dict(self.lines)
