"""Runs that are committed: what every command that only looks begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import FileDigest, RunFolder, RunRecord, read_record, run_dates
from jobs.listing import names
from jobs.storage import download, exists, scratch
from jobs.terminal import note
from jobs.uris import join
from manifests.frozen import FrozenManifest

AT_ONCE = 16


def run_folder(uri: str) -> RunFolder:
    """The folder of a run that somebody names. Raises AuditError for an address that is none."""
    try:
        return RunFolder.at(uri)
    except ValueError as error:
        raise AuditError(exits.USAGE, str(error)) from error


def committed(folder: RunFolder, command: str | None = None) -> RunRecord:
    """The record of a committed run.

    command: that may go on with what it left unfinished; None for one that only reads the published table, whose reader
    is told that a next version is unfinished.
    Raises AuditError if there is no such run, it is not committed, or another command must finish its next version.
    """
    record = read_record(folder)
    if record is None or not exists(folder.success):
        state = "there is no such run" if record is None else "the run is not committed; finish it with audit"
        raise AuditError(exits.USAGE, f"{folder.uri}: {state}")
    left = record.unfinished
    if left is not None and left.command != command and (command is not None or not _is_told_of(folder, record)):
        raise AuditError(exits.USAGE, f"{folder.uri}: {left.told(folder.uri)}")
    if left is not None and command is None:
        note(left.told(folder.uri))
    return record


def _is_told_of(folder: RunFolder, record: RunRecord) -> bool:
    """Whether the published table is the one that the record tells of. Reads all of it."""
    with scratch() as local:
        download(folder.results, local / "table")
        return record.published is not None and record.published.table == FileDigest.of(local / "table")


def committed_runs(
    output: str,
    name: str | None = None,
    until: str | None = None,
    last: int | None = None,
    unreadable: Callable[[AuditError], None] | None = None,
) -> list[tuple[RunFolder, RunRecord]]:
    """The committed runs of an output, ascending by date and then name.

    name: only those of this name. until: only those of earlier dates, YYYY-MM-DD. last: no more dates than that, the
    latest ones that have such a run. unreadable: told of each run whose record cannot be read, which is left out then;
    None: the first one raises AuditError. Raises StorageAccessError.
    """
    dates = [date for date in run_dates(output) if until is None or date < until]
    found: list[list[tuple[RunFolder, RunRecord]]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # A few dates at a time, so that a limit on an output of many years does not read all of it.
        while dates and (last is None or len(found) < last):
            some, dates = dates[-AT_ONCE:], dates[:-AT_ONCE]
            of_dates = pool.map(lambda date: list(committed_on(output, date, name, unreadable)), some)
            found[:0] = [runs for runs in of_dates if runs]
    kept = found if last is None else found[-last:]
    return [run for runs in kept for run in runs]


def committed_on(
    output: str, date: str, name: str | None = None, unreadable: Callable[[AuditError], None] | None = None
) -> Iterator[tuple[RunFolder, RunRecord]]:
    """The committed runs of a date, YYYY-MM-DD, by name. Raises as ``committed_runs``."""
    for one in [name] if name is not None else names(join(output, "runs", date)):
        folder = RunFolder(output, date, one)
        if not exists(folder.success):
            continue
        try:
            record = read_record(folder)
        except AuditError as error:
            if unreadable is None:
                raise
            unreadable(error)
        else:
            if record is not None:
                yield folder, record


def retries(folder: RunFolder, record: RunRecord) -> list[tuple[RunFolder, FrozenManifest]]:
    """The retries that the published table is to have the rows of, in order."""
    return [(folder.retry(i), FrozenManifest.from_dict(one["frozen"])) for i, one in enumerate(record.retries, 2)]
