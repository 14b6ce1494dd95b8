"""Where training tasks write how far they are. A module of its own: its process needs no torch."""

from __future__ import annotations


class ProgressBoard:
    """An actor on which tasks write how far they are, and the driver reads."""

    def __init__(self) -> None:
        self.lines: dict[str, tuple[str, int, int]] = {}

    def write(self, task: str, stage: str, done: int, total: int) -> None:
        """Set a task's line."""
        self.lines[task] = (stage, done, total)

    def read(self) -> dict[str, tuple[str, int, int]]:
        """All lines: task to (stage, done, total)."""
        return dict(self.lines)
