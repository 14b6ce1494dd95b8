"""What an output says of its nights, run by run: read now and then, and no more of it than is new."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from jobs.audit.committed import committed_runs
from jobs.audit.config import NAME
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord, read_record, run_dates
from jobs.listing import names
from jobs.report.findings import Findings
from jobs.storage import exists, read_bytes
from jobs.uris import join

# Dates with runs, the latest ones, in which unfinished runs are looked for.
LOOK_BACK = 7
MOST_NAMES = 50


@dataclass(frozen=True)
class Night:
    """A committed run. findings: of its report, None if there is none of the published version."""

    record: RunRecord
    findings: Findings | None


@dataclass(frozen=True)
class Unfinished:
    """A run that was begun and not committed. beat: when the process that holds it was last heard of, seconds since the
    epoch; None if none does."""

    run_date: str
    record: RunRecord
    beat: float | None


@dataclass
class Nights:
    """Of a name, its last committed run (by date), None if there never was one, and the unfinished ones."""

    last: Night | None = None
    unfinished: list[Unfinished] = field(default_factory=list)

    @property
    def exit_code(self) -> int | None:
        """Of the last run that has ended, committed or not."""
        later = [one for one in self.unfinished if self.last is None or one.record.run_id > self.last.record.run_id]
        codes = [one.record.exit_code for one in later if one.record.state != "running"]  # the latest run comes first
        return next(iter(codes), self.last.record.exit_code if self.last else None)


@dataclass(frozen=True)
class Reading:
    """By name, what was found. unreadable: runs whose record could not be read."""

    nights: dict[str, Nights]
    unreadable: int = 0


class Reader:
    """Reads an output again and again. wanted: names of runs; all that there are if it is empty."""

    def __init__(self, output: str, wanted: Iterable[str] = ()):
        self.output, self.wanted = output, tuple(wanted)
        self._committed: set[str] = set()
        self._before: dict[str, Night | None] = {}

    def read(self) -> Reading:
        """Read what is new.

        Raises StorageAccessError, OSError, also if the runs that were there are all gone, as those on a disk that was
        unmounted.
        """
        dates = sorted(run_dates(self.output), reverse=True)
        if not dates and any(self._before.values()):
            raise FileNotFoundError(f"{self.output}: there are no runs any more")
        by_name: dict[str, Nights] = {name: Nights() for name in (*self.wanted, *self._before)}
        unreadable = 0
        for folder in self._folders(dates[:LOOK_BACK]):
            nights = by_name.setdefault(folder.name, Nights())
            if nights.last is not None:
                continue  # an older run that was left unfinished is nobody's business any more
            try:
                done = self._is_committed(folder)
                record = read_record(folder)
            except AuditError:
                unreadable += 1
                continue
            if record is None:
                continue
            if done:
                nights.last = self._before[folder.name] = Night(record, _findings(folder, record))
            else:
                nights.unfinished.append(Unfinished(folder.run_date, record, _beat(folder)))
        for name, nights in by_name.items():
            if nights.last is None:
                nights.last = self._earlier(name)
        return Reading(by_name, unreadable)

    def _folders(self, dates: Iterable[str]) -> Iterator[RunFolder]:
        """Of these dates, in their order."""
        seen: set[str] = {*self.wanted, *self._before}
        for date in dates:
            for name in self.wanted or names(join(self.output, "runs", date)):
                if NAME.fullmatch(name) and (name in seen or len(seen) < MOST_NAMES):
                    seen.add(name)
                    yield RunFolder(self.output, date, name)

    def _is_committed(self, folder: RunFolder) -> bool:
        if folder.uri not in self._committed and exists(folder.success):
            self._committed.add(folder.uri)
        return folder.uri in self._committed

    def _earlier(self, name: str) -> Night | None:
        """The last committed run of a name from before: the one that was seen, or one of long ago, looked for once."""
        if name not in self._before:
            try:
                found = committed_runs(self.output, name, last=1)
            except AuditError:
                return None
            self._before[name] = Night(found[-1][1], _findings(*found[-1])) if found else None
        return self._before[name]


def begun_at(record: RunRecord) -> float:
    """When a run was begun, seconds since the epoch."""
    return _seconds(record.created_at)


def ended_at(record: RunRecord) -> float:
    """When a run was committed, or last ended; when it was begun if neither."""
    return _seconds(record.finished_at or record.created_at)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _findings(folder: RunFolder, record: RunRecord) -> Findings | None:
    try:
        found = Findings.model_validate_json(read_bytes(folder.report_json))
    except (FileNotFoundError, ValidationError):
        return None
    return found if found.aggregates.are_of(record) else None


def _beat(folder: RunFolder) -> float | None:
    try:
        owner = json.loads(read_bytes(folder.lock))
    except (FileNotFoundError, ValueError):
        return None
    beat = owner.get("beat") if isinstance(owner, dict) else None
    return float(beat) if isinstance(beat, int | float) else None
