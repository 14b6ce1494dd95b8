"""``line-audit review queue`` and ``review import``: what they say, and the exit code."""

from __future__ import annotations

from jobs.commands import ended
from jobs.escapes import Estimate, told
from jobs.review import import_verdicts, make_queue
from jobs.terminal import note, say


def queue_command(run: str, nearest: int, random: int, target: str) -> int:
    """Write the queue; returns the exit code."""

    def write() -> None:
        say(f"review queue: {make_queue(run, nearest, random, target)}")
        say("write good or defective into its column verdict, then: line-audit review import")

    return ended(write)


def import_command(run: str, file: str, queue: str | None) -> int:
    """Import verdicts; returns the exit code."""
    return ended(lambda: print_estimate(import_verdicts(run, file, queue)))


def print_estimate(found: Estimate) -> None:
    """What the verdicts say, on the terminal."""
    for line in told(found):
        say(line)
    for remark in found.remarks:
        note(remark)
