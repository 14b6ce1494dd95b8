"""``line-audit review``: the queue of a run for people, and what their verdicts say of the parts that passed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anomaly_core.metrics import Rate, rate_in
from jobs.audit import exits
from jobs.audit.commit import database
from jobs.audit.committed import committed, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.lock import RunLock
from jobs.audit.record import RunFolder, RunRecord, now
from jobs.audit.review import write_queue
from jobs.review_files import HEADER, VERDICTS, Queue, read_queue, read_verdicts
from jobs.storage import download, exists, read_bytes, reading, scratch, upload, write_bytes
from jobs.uris import normal


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

    def sentences(self) -> list[str]:
        """The verdicts and the escapes in words; the remarks are not among them."""
        said = [f"run {self.run_id}, version {self.version}: {self.verdicts:,} verdicts"]
        for decision, verdicts in self.confirmed.items():
            said.append(f"  {decision}: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items()))
        escapes = self.escapes
        if escapes.rate is not None and escapes.of == self.passed:
            said.append(f"escapes: {escapes.count:,} of {self.passed:,} passed parts; all of them were reviewed")
        elif escapes.rate is not None and escapes.low is not None and escapes.high is not None:
            said.append(
                f"escapes among {self.passed:,} passed parts: {escapes}, 95 % interval, from {escapes.of} of the "
                f"random sample of {self.queue}"
            )
            low, high = (round(share * self.passed) for share in (escapes.low, escapes.high))
            number = round(escapes.rate * self.passed)
            said.append(f"that is {number:,} defective parts that passed ({low:,} to {high:,})")
        return said


def make_queue(run: str, nearest: int, random: int, target: str) -> str:
    """Write a queue of a committed run as CSV to ``target``; returns its URI.

    Raises AuditError, also if there is a file already: somebody may have written verdicts into it.
    """
    folder = run_folder(run)
    record = committed(folder)
    with scratch() as local:
        download(folder.results, local / "table.parquet")
        with database(local) as connection:
            connection.read_parquet(str(local / "table.parquet"), hive_partitioning=False).create_view("rows")
            write_queue(connection, record.run_id, record.version, local / "queue.csv", nearest, random)
        uri = normal(target)
        if exists(uri):
            raise AuditError(exits.USAGE, f"{target}: there is a file already; give another name")
        upload(local / "queue.csv", uri)
    return uri


def import_verdicts(run: str, file: str, queue: str | None = None) -> Estimate:
    """Take the verdicts of a CSV over into the run's, and estimate from all of them how many defective parts passed.

    file: CSV with columns image_id and verdict, as a spreadsheet saves it; others are left alone, and a row without a
    verdict is passed over. queue: that the images were chosen by, if not the run's own. The estimate is made from the
    queue of the published version that has most verdicts: from this one, or from that of the estimate before. Raises
    AuditError naming row and remedy.
    """
    folder = run_folder(run)
    try:
        given = read_verdicts(file, read_bytes(normal(file)))
    except FileNotFoundError as error:
        raise AuditError(exits.USAGE, f"{file}: there is no such file") from error
    with RunLock(folder.lock):
        record = committed(folder)
        queues = _queues(folder, record, queue)
        known = _known(folder) | given
        decisions = _decisions(folder, set(known).union(*(one.sample for one in queues.values())))
        unknown = sorted(set(given) - set(decisions))
        if unknown:
            raise AuditError(
                exits.USAGE, f"{file}: {len(unknown)} images are not scored rows of this run, such as {unknown[0]}"
            )
        estimate = _estimate(folder, record, known, queues, decisions)
        write_bytes(folder.verdicts, _written(known))
        if estimate.queue is not None:
            write_bytes(folder.sample(record.version), read_bytes(estimate.queue))
        write_bytes(folder.estimate, (json.dumps(asdict(estimate), indent=2) + "\n").encode())
    return estimate


def _queues(folder: RunFolder, record: RunRecord, asked: str | None) -> dict[str, Queue]:
    """By URI: the queue that is asked for, else the version's own; then that which the last estimate was made from."""
    uri = normal(asked) if asked else folder.queue(record.version)
    try:
        found = {uri: read_queue(uri, read_bytes(uri))}
    except FileNotFoundError as error:
        raise AuditError(exits.USAGE, f"{uri}: there is no queue; line-audit review queue makes one") from error
    if found[uri].run_id != record.run_id:
        raise AuditError(exits.USAGE, f"{uri}: a queue of run {found[uri].run_id}, not of {record.run_id}")
    kept = folder.sample(record.version)
    with suppress(FileNotFoundError):
        found[kept] = read_queue(kept, read_bytes(kept))
    return found


def _estimate(
    folder: RunFolder,
    record: RunRecord,
    known: Mapping[str, str],
    queues: Mapping[str, Queue],
    decisions: Mapping[str, str],
) -> Estimate:
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
    escapes = _escapes(known, seen, passed, confirmed.get("normal", dict.fromkeys(VERDICTS, 0)))
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


def _known(folder: RunFolder) -> dict[str, str]:
    try:
        return read_verdicts(folder.verdicts, read_bytes(folder.verdicts))
    except FileNotFoundError:
        return {}


def _written(verdicts: Mapping[str, str]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([HEADER, *sorted(verdicts.items())])
    return buffer.getvalue().encode()


def _decisions(folder: RunFolder, images: set[str]) -> dict[str, str]:
    """Of the scored rows among these images."""
    wanted = pc.field("image_id").isin(pa.array(sorted(images), pa.string())) & (pc.field("status") == "scored")
    with reading(folder.results) as file:
        rows = pq.read_table(file, columns=["image_id", "decision"], filters=wanted)
    return dict(zip(rows["image_id"].to_pylist(), rows["decision"].to_pylist(), strict=True))
