"""How many defective parts passed, from people's verdicts on a random sample of what passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from anomaly_core.metrics import Rate, rate_in
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord, now
from jobs.review_files import VERDICTS, Queue


@dataclass(frozen=True)
class Estimate:
    """What verdicts say of a version of the results, the one that is published.

    queue: whose random sample the estimate is made from; None if it is from none. passed: parts that were decided
    normal; sample: of those, in the random sample; escapes: share of the reviewed ones of the sample that are
    defective, with the hypergeometric interval, which knows how many passed; confirmed: of reviewed rows, by decision
    and verdict; remarks: what a reader must know of it, such as why there is no estimate.
    """

    run_id: str
    version: int
    queue: str | None
    imported_at: str
    verdicts: int
    passed: int
    sample: int
    escapes: Rate
    confirmed: dict[str, dict[str, int]]
    remarks: list[str]


def estimate_of(
    folder: RunFolder,
    record: RunRecord,
    known: Mapping[str, str],
    queues: Mapping[str, Queue],
    decisions: Mapping[str, str],
) -> Estimate:
    """What the verdicts say of the run's published version.

    known: good or defective, by image_id. queues: by URI, that the images may have been chosen by. decisions: of the
    scored rows among the images of both. Raises AuditError for a queue that was not drawn as it says.
    """
    passed, remarks = int(record.counts["decisions"].get("normal", 0)), list[str]()
    usable: dict[str, Queue] = {}
    for uri, queue in queues.items():
        if (queue.version, queue.passed) == (record.version, passed):
            _check_drawn(uri, queue, decisions)
            usable[uri] = queue
        else:
            remarks.append(
                f"{uri} is a sample of the {queue.passed:,} parts that passed in version {queue.version} of the "
                f"results, not of the {passed:,} of version {record.version}: no estimate comes from it; review "
                f"{folder.queue(record.version)}"
            )
    best = max(usable, key=lambda one: (len(_reviewed(usable[one], known)), len(usable[one].sample)), default=None)
    seen, sample = frozenset[str](), 0
    if best is not None:
        seen, sample = _reviewed(usable[best], known), len(usable[best].sample)
        remarks += _doubts(best, usable[best], known)
    confirmed = _confirmed(known, decisions)
    of_passed = confirmed.get("normal", dict.fromkeys(VERDICTS, 0))
    escapes = _escapes(known, seen, passed, of_passed)
    if escapes.rate is not None and escapes.rate != escapes.count / escapes.of:
        remarks.append(
            f"{escapes.count:,} of {escapes.of:,} of the sample are defective, but of all {passed:,} parts that passed "
            f"{of_passed['defective']:,} are known to be defective and {of_passed['good']:,} to be good: the estimate "
            "is what that leaves possible"
        )
    return Estimate(
        run_id=record.run_id,
        version=record.version,
        queue=best if seen else None,
        imported_at=now(),
        verdicts=len(known),
        passed=passed,
        sample=sample,
        escapes=escapes,
        confirmed=confirmed,
        remarks=[] if passed and escapes.of == passed else remarks,
    )


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


def _escapes(known: Mapping[str, str], seen: frozenset[str], passed: int, confirmed: Mapping[str, int]) -> Rate:
    """From the reviewed images of the sample; confirmed: verdicts on all parts that passed, of the sample or not.

    The hypergeometric interval of rate_in, cut, as the rate is, to what those verdicts leave possible. Once there is
    one on each part, they are all that counts.
    """
    if passed and sum(confirmed.values()) == passed:
        return rate_in(confirmed["defective"], passed, passed)
    found = rate_in(sum(known[image] == "defective" for image in seen), len(seen), passed)
    if not seen:
        return found
    least, most = confirmed["defective"] / passed, (passed - confirmed["good"]) / passed
    return replace(found, **{name: min(max(getattr(found, name), least), most) for name in ("rate", "low", "high")})


def _check_drawn(uri: str, queue: Queue, decisions: Mapping[str, str]) -> None:
    odd = sorted(image for image in queue.sample if decisions.get(image) != "normal")
    if odd:
        raise AuditError(
            exits.USAGE,
            f"{uri}: {odd[0][:40]} of its random sample is no part that passed in version {queue.version}; give the "
            "queue as it was drawn",
        )


def _reviewed(queue: Queue, known: Mapping[str, str]) -> frozenset[str]:
    """Images of the random sample with a verdict. None in a later version, as long as one lacks it: those that have one
    may have been chosen by an earlier version, which passed other parts."""
    seen = queue.sample & known.keys()
    return seen if queue.version == 1 or seen == queue.sample else frozenset()


def _doubts(uri: str, queue: Queue, known: Mapping[str, str]) -> list[str]:
    missing = len(queue.sample - known.keys())
    if missing == len(queue.sample):
        return ["no verdict is of the random sample of passed parts, so nothing can be said of escapes"]
    if missing and queue.version > 1:
        return [
            f"{missing} images of the random sample of {uri} have no verdict: nothing is said of escapes until all "
            "have one, because those of earlier versions are of the parts that passed then"
        ]
    if missing:
        return [
            f"{missing} images of the random sample have no verdict: the estimate is honest only if nobody chose which"
        ]
    return []


def _confirmed(known: Mapping[str, str], decisions: Mapping[str, str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for image, verdict in known.items():
        found.setdefault(decisions[image], dict.fromkeys(VERDICTS, 0))[verdict] += 1
    return dict(sorted(found.items()))
