"""The report of a run: its findings, and its page."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.audit.record import RunFolder, RunRecord
from jobs.database import results_database
from jobs.report.aggregates import aggregate, view
from jobs.report.calibration import calibrated
from jobs.report.details import details
from jobs.report.findings import NIGHTS, Findings, findings
from jobs.report.gallery import tiles
from jobs.report.history import history
from jobs.report.page import page
from jobs.storage import write_bytes


@dataclass(frozen=True)
class Report:
    """report.html and what report.json says."""

    page: str
    findings: Findings


def make_report(
    folder: RunFolder, record: RunRecord, bundle: str, nights: int = NIGHTS, table: str | None = None
) -> Report:
    """The report of the results that are published, which ``record`` tells of.

    bundle: where the run's bundle is now. nights: so many earlier ones of the same name at most are held against.
    table: a copy of the published table that is nearer; None for the table itself.
    Raises duckdb.Error or FileNotFoundError if the table cannot be read, StorageAccessError.
    """
    table = table or folder.results
    with results_database(table) as connection:
        view(connection, table)
        night, shown = aggregate(connection, record), details(connection)
    before, calibration = history(folder, nights), calibrated(record, bundle)
    found = findings(record, night, before.nights, calibration.scores, calibration.why_none)
    return Report(page(folder, record, found, before, calibration, shown, tiles(folder, shown.shots)), found)


def write_report(folder: RunFolder, report: Report) -> None:
    """Write both files. Raises StorageAccessError."""
    write_bytes(folder.report_json, (report.findings.model_dump_json() + "\n").encode())
    write_bytes(folder.report, report.page.encode())
