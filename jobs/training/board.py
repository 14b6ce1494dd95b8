"""Where training tasks write how far they are. A module of its own: its process needs no torch."""

from __future__ import annotations

# task name -> (stage, done, total)
Board = dict[str, tuple[str, int, int]]


class ProgressBoard:
    """An actor on which tasks write how far they are, and the driver reads."""

    def __init__(self) -> None:
        self.lines: Board = {}
        self.parts: dict[str, dict[int, tuple[int, int]]] = {}

    def write(self, task: str, stage: str, done: int, total: int) -> None:
        """Set a task's line."""
        self.lines[task] = (stage, done, total)

    def part(self, task: str, number: int, of: int, done: int, total: int) -> None:
        """Set the line of a task that is done in so many fits, some side by side, from how far one of them is."""
        parts = self.parts.setdefault(task, {})
        parts[number] = (done, total)
        longest = max(length for _, length in parts.values())
        self.lines[task] = (f"{of} fits", sum(done for done, _ in parts.values()), of * longest)

    def read(self) -> Board:
        """All lines: task to (stage, done, total)."""
        return dict(self.lines)
