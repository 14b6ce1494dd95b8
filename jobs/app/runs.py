"""The committed runs of an output, each as a table on this machine that is asked for pages of its rows."""

from __future__ import annotations

import threading
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import duckdb

from anomaly_core.preprocess import Limits, Preprocessing
from jobs.app.rows import rank
from jobs.audit import exits
from jobs.audit.committed import committed, committed_on, committed_runs, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.record import FileDigest, RunFolder, RunRecord, run_dates
from jobs.database import results_database
from jobs.show.pictures import turned_upright
from jobs.storage import download, scratch
from jobs.uris import join, normal
from jobs.verdicts import VerdictLog

# Runs whose tables are held on this machine's disk; each has a DuckDB with the memory that manifests/database.py says.
KEPT = 4


@dataclass(frozen=True)
class RunName:
    """A version of the results of a run, with the SHA-256 of its table, if that was recorded: what a page holds on to
    while its rows are looked at."""

    run_date: str
    name: str
    version: int
    sha256: str | None


class BrowsedRun:
    """A version of a run's results: its table as it was published, on this machine.

    table: copy of the published table. connection: a DuckDB in which ``ranked`` has its rows, worst first. log: what
    people said. Gone with the last who uses it.
    """

    def __init__(self, folder: RunFolder, record: RunRecord):
        self.folder, self.record, self.log = folder, record, VerdictLog(folder.recorded)
        with ExitStack() as stack:
            local = stack.enter_context(scratch())
            self.table = local / "published.parquet"
            try:
                download(folder.results, self.table)
            except FileNotFoundError:
                raise AuditError(exits.USAGE, f"{folder.results}: the published table is gone") from None
            if record.published is not None and FileDigest.of(self.table) != record.published.table:
                raise AuditError(
                    exits.USAGE,
                    f"{folder.results}: not the table that run.json tells of; if a new version is being published, "
                    "look again in a minute, else line-audit verify tells what was changed",
                )
            self.connection: duckdb.DuckDBPyConnection = stack.enter_context(results_database())
            rank(self.connection, self.table)
            weakref.finalize(self, stack.pop_all().close)

    @property
    def name(self) -> RunName:
        """The version that this is."""
        return named(self.folder, self.record)

    @property
    def limits(self) -> Limits:
        """The largest image that the run decoded."""
        settings = self.record.parts["settings"]
        return Limits(settings["max_bytes"], settings["max_pixels"])

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What the run did to an image file. Raises AuditError if neither its record nor its bundle tells."""
        return self.record.preprocessing or Preprocessing(exif_orientation=turned_upright(self.record, None))


class Runs:
    """The committed runs of an output. The last ones that were looked at stay at hand.

    output: URI. Threads may share it. Its methods raise AuditError and StorageAccessError.
    """

    def __init__(self, output: str):
        self.output = normal(output)
        self._kept: dict[tuple[str, str], BrowsedRun] = {}
        self._lock = threading.Lock()

    def dates(self) -> list[str]:
        """Dates that have runs, the latest first; a run may be unfinished."""
        return run_dates(self.output)[::-1]

    def latest(self) -> tuple[str, str] | None:
        """Date and name of the last committed run."""
        found = committed_runs(self.output, last=1)
        return (found[-1][0].run_date, found[-1][0].name) if found else None

    def names(self, run_date: str) -> list[str]:
        """The committed runs of a date."""
        return [folder.name for folder, _ in committed_on(self.output, run_date)]

    def open(self, run_date: str, name: str) -> BrowsedRun:
        """The version of a run that is published now."""
        folder = run_folder(join(self.output, "runs", run_date, name))
        if (folder.output, folder.run_date, folder.name) != (self.output, run_date, name):  # it comes from the page
            raise AuditError(exits.USAGE, f"{run_date}/{name} is no run of {self.output}")
        with self._lock:  # who wants the same run waits until it is here
            record = committed(folder)
            kept = self._kept.pop((run_date, name), None)
            if kept is None or kept.name != named(folder, record):
                kept = None  # before the next one is fetched, its disk space is given back
                kept = BrowsedRun(folder, record)
            self._kept[run_date, name] = kept
            for oldest in list(self._kept)[:-KEPT]:
                del self._kept[oldest]
        return kept

    def held(self, wanted: RunName) -> BrowsedRun:
        """The version of a run that a page was begun with. Raises AuditError if there is another one by now."""
        kept = self._kept.get((wanted.run_date, wanted.name))
        if kept is None or kept.name != wanted:
            kept = self.open(wanted.run_date, wanted.name)
        if kept.name != wanted:
            raise AuditError(exits.USAGE, f"run {wanted.run_date}/{wanted.name} has new results: choose it again")
        return kept


def named(folder: RunFolder, record: RunRecord) -> RunName:
    """The published version of a run."""
    digest = record.published.table.sha256 if record.published is not None else None
    return RunName(folder.run_date, folder.name, record.version, digest)
