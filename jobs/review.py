"""``line-audit review``: the queue of a run for people, and what their verdicts say of the parts that passed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anomaly_core.metrics import Rate, rate
from jobs.audit import exits
from jobs.audit.commit import database
from jobs.audit.exits import AuditError
from jobs.audit.lock import RunLock
from jobs.audit.record import RunFolder, now
from jobs.audit.retry import committed
from jobs.audit.review import write_queue
from jobs.review_files import HEADER, VERDICTS, read_sample, read_verdicts
from jobs.storage import download, exists, read_bytes, reading, scratch, upload, write_bytes
from jobs.uris import normal


@dataclass(frozen=True)
class Estimate:
    """What verdicts say. passed: parts that were decided normal; sample: of those, in the random sample; escapes: share
    of the reviewed ones of the sample that are defective, with its interval; confirmed: of reviewed rows, by decision
    and verdict."""

    run_id: str
    imported_at: str
    verdicts: int
    passed: int
    sample: int
    escapes: Rate
    confirmed: dict[str, dict[str, int]]


def make_queue(run: str, nearest: int, random: int, target: str) -> str:
    """Write a queue of a committed run as CSV to ``target``; returns its URI.

    Raises AuditError, also if there is a file already: somebody may have written verdicts into it.
    """
    folder = _folder(run)
    record = committed(folder)
    with scratch() as local:
        download(folder.results, local / "table.parquet")
        with database(local) as connection:
            connection.read_parquet(str(local / "table.parquet"), hive_partitioning=False).create_view("rows")
            write_queue(connection, record.run_id, local / "queue.csv", nearest, random)
        uri = normal(target)
        if exists(uri):
            raise AuditError(exits.USAGE, f"{target}: there is a file already; give another name")
        upload(local / "queue.csv", uri)
    return uri


def import_verdicts(run: str, file: str, queue: str | None = None) -> Estimate:
    """Take the verdicts of a CSV over into the run's, and estimate from all of them how many defective parts passed.

    file: CSV with columns image_id and verdict, as a spreadsheet saves it; others are left alone, and a row without a
    verdict is passed over. queue: that the images were chosen by, if not the run's own. Raises AuditError naming row
    and remedy.
    """
    folder = _folder(run)
    try:
        given = read_verdicts(file, read_bytes(normal(file)))
    except FileNotFoundError as error:
        raise AuditError(exits.USAGE, f"{file}: there is no such file") from error
    with RunLock(folder.lock):
        record = committed(folder)
        sample = _sample(queue or folder.queue(record.version))
        decisions = _decisions(folder, set(given) | sample)
        unknown = sorted(set(given) - set(decisions))
        if unknown:
            raise AuditError(
                exits.USAGE, f"{file}: {len(unknown)} images are not scored rows of this run, such as {unknown[0]}"
            )
        known = _known(folder) | given
        write_bytes(folder.verdicts, _written(known))
        estimate = _estimate(record.run_id, known, sample, _decisions(folder, set(known) | sample), record.counts)
        write_bytes(folder.estimate, (json.dumps(asdict(estimate), indent=2) + "\n").encode())
    return estimate


def _estimate(
    run_id: str, known: Mapping[str, str], sample: set[str], decisions: Mapping[str, str], counts: Mapping[str, Any]
) -> Estimate:
    # Decisions may have been taken again since the sample was drawn; what passes now is what the estimate is of.
    drawn = {image for image in sample if decisions.get(image) == "normal"}
    reviewed = drawn & set(known)
    defective = sum(known[image] == "defective" for image in reviewed)
    confirmed: dict[str, dict[str, int]] = {}
    for image, verdict in known.items():
        of_decision = confirmed.setdefault(decisions[image], dict.fromkeys(VERDICTS, 0))
        of_decision[verdict] += 1
    passed = int(counts["decisions"].get("normal", 0))
    found = rate(defective, len(reviewed))
    return Estimate(run_id, now(), len(known), passed, len(drawn), found, dict(sorted(confirmed.items())))


def _folder(run: str) -> RunFolder:
    try:
        return RunFolder.at(run)
    except ValueError as error:
        raise AuditError(exits.USAGE, str(error)) from error


def _sample(uri: str) -> set[str]:
    try:
        return read_sample(uri, read_bytes(normal(uri)))
    except FileNotFoundError as error:
        raise AuditError(exits.USAGE, f"{uri}: there is no queue; line-audit review queue makes one") from error


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
