"""``line-audit review queue`` and ``review import``: what they say, and the exit code."""

from __future__ import annotations

from collections.abc import Callable

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.review import Estimate, import_verdicts, make_queue
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, note
from jobs.terminal import output as console


def queue_command(run: str, nearest: int, random: int, target: str) -> int:
    """Write the queue; returns the exit code."""

    def write() -> None:
        _say(f"review queue: {make_queue(run, nearest, random, target)}")
        _say("write good or defective into its column verdict, then: line-audit review import")

    return _ended(write)


def import_command(run: str, file: str, queue: str | None) -> int:
    """Import verdicts; returns the exit code."""
    return _ended(lambda: print_estimate(import_verdicts(run, file, queue)))


def print_estimate(found: Estimate) -> None:
    """What the verdicts say, on the terminal."""
    _say(f"run {found.run_id}: {found.verdicts:,} verdicts")
    for decision, verdicts in found.confirmed.items():
        _say(f"  {decision}: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items()))
    escapes = found.escapes
    if escapes.rate is None or escapes.low is None or escapes.high is None:
        note("no verdict is of the random sample of passed parts, so nothing can be said of escapes")
        return
    _say(
        f"escapes among {found.passed:,} passed parts: {escapes}, 95 % interval, from {escapes.of} of the random sample"
    )
    low, high = (round(share * found.passed) for share in (escapes.low, escapes.high))
    _say(f"that is {round(escapes.rate * found.passed):,} defective parts that passed ({low:,} to {high:,})")
    if escapes.of < found.sample:
        note(
            f"{found.sample - escapes.of} images of the random sample have no verdict: the estimate is honest only if "
            "nobody chose which"
        )


def _ended(work: Callable[[], None]) -> int:
    try:
        work()
    except AuditError as error:
        complain(error.message)
        return error.code
    except StorageAccessError as error:
        complain(str(error))
        return exits.NO_ACCESS
    return exits.COMMITTED


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
