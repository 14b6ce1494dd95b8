"""``line-audit review queue`` and ``review import``: what they say, and the exit code."""

from __future__ import annotations

from jobs.commands import ended
from jobs.escapes import Estimate
from jobs.review import import_verdicts, make_queue
from jobs.terminal import note
from jobs.terminal import output as console


def queue_command(run: str, nearest: int, random: int, target: str) -> int:
    """Write the queue; returns the exit code."""

    def write() -> None:
        _say(f"review queue: {make_queue(run, nearest, random, target)}")
        _say("write good or defective into its column verdict, then: line-audit review import")

    return ended(write)


def import_command(run: str, file: str, queue: str | None) -> int:
    """Import verdicts; returns the exit code."""
    return ended(lambda: print_estimate(import_verdicts(run, file, queue)))


def print_estimate(found: Estimate) -> None:
    """What the verdicts say, on the terminal."""
    for line in told(found):
        _say(line)
    for remark in found.remarks:
        note(remark)


def told(found: Estimate) -> list[str]:
    """What the verdicts say, in lines for people."""
    lines = [f"run {found.run_id}, version {found.version}: {found.verdicts:,} verdicts"]
    for decision, verdicts in found.confirmed.items():
        lines.append(f"  {decision}: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items()))
    escapes = found.escapes
    if escapes.rate is not None and escapes.of == found.passed:
        lines.append(f"escapes: {escapes.count:,} of {found.passed:,} passed parts; all of them were reviewed")
    elif escapes.rate is not None and escapes.low is not None and escapes.high is not None:
        lines.append(
            f"escapes among {found.passed:,} passed parts: {escapes}, 95 % interval, from {escapes.of} of the random "
            f"sample of {found.queue}"
        )
        low, high = (round(share * found.passed) for share in (escapes.low, escapes.high))
        lines.append(
            f"that is {round(escapes.rate * found.passed):,} defective parts that passed ({low:,} to {high:,})"
        )
    return lines


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
