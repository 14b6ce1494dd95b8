"""The earlier nights of a name, in numbers: from their report.json, or where that is missing from their tables."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import duckdb
from pydantic import BaseModel, ConfigDict

from jobs.audit.committed import committed_runs
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.database import results_database
from jobs.report.aggregates import Aggregates, aggregate, view
from jobs.storage import read_bytes
from jobs.storage_errors import StorageAccessError

AT_ONCE = 8


class _Stored(BaseModel):
    """What is read of another run's report.json: its other parts may be of another version."""

    model_config = ConfigDict(extra="ignore")

    aggregates: Aggregates


@dataclass
class History:
    """Earlier nights, ascending. remarks: what could not be read, for people. computed: nights that had to be counted
    again from their tables."""

    nights: list[Aggregates] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    computed: int = 0


def history(folder: RunFolder, last: int) -> History:
    """At most so many nights of the same output and name before this one.

    What cannot be read is left out with a remark: a report without a night is better than none.
    """
    found = History()

    def unreadable(error: AuditError) -> None:
        found.remarks.append(f"an earlier night is left out: {error}")

    try:
        runs = committed_runs(folder.output, folder.name, folder.run_date, last, unreadable) if last else []
    except (StorageAccessError, OSError) as error:
        found.remarks.append(f"no earlier night could be read: {error}")
        return found
    with ThreadPoolExecutor(AT_ONCE) as pool:
        kept = list(pool.map(lambda run: _kept(*run), runs))
    for (earlier, record), aggregates in zip(runs, kept, strict=True):
        try:
            if aggregates is None:
                aggregates = _computed(earlier, record)
                found.computed += 1
        except (duckdb.Error, OSError, StorageAccessError, ValueError, KeyError) as error:
            found.remarks.append(f"{record.run_id} is left out, its results could not be read: {error}")
        else:
            found.nights.append(aggregates)
    return found


def _kept(folder: RunFolder, record: RunRecord) -> Aggregates | None:
    """Those of report.json, if they are there and of the results that are published."""
    try:
        found = _Stored.model_validate_json(read_bytes(folder.report_json)).aggregates
        for scores in found.scores:
            scores.histogram.dense()
    except (OSError, StorageAccessError, ValueError):  # also if it is not there, or no JSON of this version
        return None  # then they are counted again
    return found if found.are_of(record) else None


def _computed(folder: RunFolder, record: RunRecord) -> Aggregates:
    if record.unfinished is not None:
        raise ValueError(record.unfinished.told(folder.uri))
    with results_database(folder.results) as connection:
        view(connection, folder.results)
        return aggregate(connection, record)
