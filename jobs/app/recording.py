"""Verdicts that people give on the page: recorded at once, then counted in the run's estimate of escapes."""

from __future__ import annotations

import threading

from jobs.app.rows import Row
from jobs.app.runs import BrowsedRun
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.escapes import told
from jobs.review import update_estimate
from jobs.storage import exists
from jobs.verdicts import LONGEST_NAME, MEANING, Verdict
from manifests.schema import printable


def choices(row: Row) -> list[tuple[str, str]]:
    """What may be said of a row, as label and value; nothing of one that failed."""
    meaning = MEANING.get(row["decision"], {})
    return [
        (said.capitalize() if said == truth else f"{said.capitalize()}: {truth}", said)
        for said, truth in meaning.items()
    ]


def signed(who: str | None, user: str | None) -> str | None:
    """How somebody calls themselves, else the user they logged in as."""
    return printable((who or "").strip() or user or "", LONGEST_NAME) or None


class Recorder:
    """Records verdicts of all users of a page."""

    def __init__(self) -> None:
        self._estimating = threading.Lock()

    def record(self, run: BrowsedRun, row: Row, said: str | None, who: str | None) -> Verdict:
        """Record what somebody says of a row, once it is written.

        Raises AuditError for what cannot be said of it, and if the run is gone; StorageAccessError.
        """
        meaning = {str(words): (words, truth) for words, truth in MEANING.get(row["decision"], {}).items()}
        if said not in meaning:
            raise AuditError(
                exits.USAGE, f"choose a verdict; of a row decided {row['decision']}: {', '.join(meaning) or 'none'}"
            )
        if not exists(run.folder.success):
            raise AuditError(
                exits.USAGE, f"run {run.record.run_id} is gone, or not committed any more: choose another one"
            )
        words, truth = meaning[said]
        run.log.refresh()
        return run.log.append({row["image_id"]: (words, truth, row["decision"])}, run.record.version, who)[0]

    def estimate(self, run: BrowsedRun) -> list[str]:
        """What all verdicts say of escapes by now, in lines, or why that is not known. Raises StorageAccessError."""
        try:
            with self._estimating:  # of this page's users each has a turn; other processes are told by the run's lock
                found = update_estimate(run.folder.uri, run.log)
        except AuditError as error:
            if error.code == exits.LOCKED:
                return ["The estimate follows with the next verdict or import: another process works on the run."]
            return [f"No estimate: {error.message}"]
        return [*told(found), *found.remarks]
