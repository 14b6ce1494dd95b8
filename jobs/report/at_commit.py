"""The report of results that are being published; an audit's own part of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from jobs.audit.record import RunFolder, RunRecord
from manifests.secrets import redacted

_log = logging.getLogger(__name__)


def report_at_commit(
    folder: RunFolder,
    record: RunRecord,
    bundle: str,
    table: Path,
    ours: Callable[[], None],
    said: Callable[[str], None],
) -> str | None:
    """Make and write the report of results that were published, whatever happens to it: they stand without it.

    table: the published table, on this machine. ours: raises if the run is no longer ours; that alone ends the run.
    said: told why there is no report. Returns its URI, or None if there is none.
    """
    try:
        from jobs.report import make  # its charts and statistics take a second, which no start of an audit waits for

        report = make.make_report(folder, record, bundle, table=str(table))
    except Exception as error:  # of a page for people; told, and the run goes on
        said(_failed(folder, record, error))
        return None
    ours()
    try:
        make.write_report(folder, report)
    except Exception as error:  # likewise
        said(_failed(folder, record, error))
        return None
    _log.info("report written", extra={"report": folder.report, "verdict": report.findings.verdict})
    return folder.report


def _failed(folder: RunFolder, record: RunRecord, error: Exception) -> str:
    problem = redacted(f"{type(error).__name__}: {error}")[:500]
    return (
        f"the results are published, but version {record.version} of them has no report ({problem}); "
        f"line-audit report {folder.uri} makes it"
    )
