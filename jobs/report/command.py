"""``line-audit report``: make the report of a committed run again."""

from __future__ import annotations

import duckdb

from jobs.audit import exits
from jobs.audit.committed import committed, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.lock import RunLock
from jobs.commands import ended
from jobs.report.make import make_report, write_report
from jobs.terminal import say


def report_command(run: str, bundle: str | None, nights: int) -> int:
    """Write report.html and report.json of a run; returns the exit code."""

    def report() -> None:
        folder = run_folder(run)
        with RunLock(folder.lock) as lock:
            record = committed(folder)
            try:
                made = make_report(folder, record, bundle or record.bundle, nights)
            except (duckdb.Error, FileNotFoundError) as error:
                said = f"{folder.results}: the results cannot be read: {error}"
                raise AuditError(exits.FAILED, said) from error
            lock.check()
            write_report(folder, made)
        say(f"run {record.run_id}, version {record.version}: {made.findings.verdict}")
        for sentence in made.findings.sentences:
            say(f"  {sentence}")
        say(f"report: {folder.report}")

    return ended(report)
