"""``line-audit review``: the queue of a run for people, and what their verdicts say of the parts that passed.

Verdicts come from files (``import_verdicts``) and from the app (jobs/verdicts.py); all are recorded alike, and the
estimate is made of all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.audit import exits
from jobs.audit.commit import database
from jobs.audit.committed import committed, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.lock import RunLock
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.review import write_queue
from jobs.escapes import Estimate, estimate_of
from jobs.review_files import HEADER, Queue, Truth, read_queue, read_verdicts, table_of_verdicts
from jobs.storage import download, exists, read_bytes, reading, scratch, upload, write_bytes
from jobs.uris import normal
from jobs.verdicts import VerdictLog


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
    log = VerdictLog(folder.recorded)
    with RunLock(folder.lock):
        found, counted = _renewed(folder, log, queue, given, file)
    return _with_later(folder, log, found, counted)


def update_estimate(run: str, log: VerdictLog | None = None) -> Estimate:
    """Make the run's table of verdicts and its estimate anew, after verdicts were recorded.

    log: of the run, if there is one that has read files already. Raises AuditError; with the code LOCKED if another
    process works on the run. If that one records or imports verdicts too, it takes along what was recorded before this
    was called.
    """
    folder = run_folder(run)
    log = log or VerdictLog(folder.recorded)
    with RunLock(folder.lock):
        found, counted = _renewed(folder, log)
    return _with_later(folder, log, found, counted)


def _with_later(folder: RunFolder, log: VerdictLog, found: Estimate, counted: int) -> Estimate:
    """The estimate with what was recorded while it was made by somebody who could not have the lock. Looked at after
    the lock was given back: who records later than that gets it. counted: as ``_renewed`` returns it."""
    while log.refresh() != counted:
        try:
            with RunLock(folder.lock):
                found, counted = _renewed(folder, log)
        except AuditError as error:
            if error.code != exits.LOCKED:
                raise
            break  # by another one who looks again afterwards
    return found


def _renewed(
    folder: RunFolder,
    log: VerdictLog,
    asked: str | None = None,
    given: Mapping[str, Truth] | None = None,
    file: str = "",
) -> tuple[Estimate, int]:
    """The estimate from all verdicts, written with their table, and the state of the log that it is made from.

    given: further ones, from a file, to record first.
    """
    record, given = committed(folder), given or {}
    counted = log.refresh()
    before = _known(folder, log)
    known = before | dict(given)
    queues = _queues(folder, record, asked)
    decisions = _decisions(folder, set(known).union(*(one.sample for one in queues.values())))
    unknown = sorted(set(given) - set(decisions))
    if unknown:
        raise AuditError(
            exits.USAGE, f"{file}: {len(unknown)} images are not scored rows of this run, such as {unknown[0]}"
        )
    counting = {image: truth for image, truth in known.items() if image in decisions}
    estimate = estimate_of(folder, record, counting, queues, decisions)
    if lost := sorted(known.keys() - counting.keys()):
        said = f"{len(lost)} verdicts are on images that are no scored rows of this run, such as {lost[0][:40]}"
        estimate = replace(estimate, remarks=[*estimate.remarks, f"{said}: they are not counted"])
    changed = {image: (truth, decisions[image]) for image, truth in given.items() if before.get(image) != truth}
    if changed:
        log.append({image: (truth, truth, decision) for image, (truth, decision) in changed.items()}, record.version)
        counted += 1
    write_bytes(folder.verdicts, _written(known))
    if estimate.queue is not None:
        write_bytes(folder.sample(record.version), read_bytes(estimate.queue))
    write_bytes(folder.estimate, (json.dumps(asdict(estimate), indent=2) + "\n").encode())
    return estimate, counted


def queue_at(uri: str, folder: RunFolder) -> Queue:
    """The review queue in a file, of a run. Raises AuditError, also if there is none; StorageAccessError."""
    try:
        return read_queue(uri, read_bytes(uri))
    except FileNotFoundError:
        said = f"{uri}: there is no review queue; line-audit review queue --run {folder.uri} --output {uri} makes it"
        raise AuditError(exits.USAGE, said) from None


def _queues(folder: RunFolder, record: RunRecord, asked: str | None) -> dict[str, Queue]:
    """By URI: the queue that is asked for, else the version's own; then that which the last estimate was made from."""
    uri = normal(asked) if asked else folder.queue(record.version)
    found = {uri: queue_at(uri, folder)}
    if found[uri].run_id != record.run_id:
        raise AuditError(exits.USAGE, f"{uri}: a queue of run {found[uri].run_id}, not of {record.run_id}")
    kept = folder.sample(record.version)
    with suppress(FileNotFoundError):
        found[kept] = read_queue(kept, read_bytes(kept))
    return found


def _known(folder: RunFolder, log: VerdictLog) -> dict[str, Truth]:
    """The verdicts in force that say what a part is. Those in the table that were never recorded one by one, by older
    versions, are the oldest."""
    try:
        known = table_of_verdicts(folder.verdicts, read_bytes(folder.verdicts))
    except FileNotFoundError:
        known = {}
    recorded = log.in_force()
    return {image: truth for image, truth in known.items() if image not in recorded} | {
        image: one.verdict for image, one in recorded.items() if one.verdict != "unsure"
    }


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
