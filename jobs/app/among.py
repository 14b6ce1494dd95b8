"""Rows by what is known of their images outside of the table: the review queue, and what people said."""

from __future__ import annotations

from jobs.app.rows import Among
from jobs.app.runs import BrowsedRun
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.review import queue_at

ALL = "all"
QUEUES = {"All rows": ALL, "Review queue": "queue", "Its random sample": "sample"}
VERDICTS = {
    "All rows": ALL,
    "None yet": "none",
    "Any verdict": "any",
    "The part is good": "good",
    "The part is defective": "defective",
    "Unsure": "unsure",
}


def among(run: BrowsedRun, queue: str | None, said: str | None) -> list[Among]:
    """What a value of QUEUES and one of VERDICTS leave. Raises AuditError, also for what is no such value;
    StorageAccessError."""
    found = []
    if (queue := _known(queue, QUEUES)) != ALL:
        asked = queue_at(run.folder.queue(run.record.version), run.folder)
        found.append(Among(asked.images if queue == "queue" else asked.sample))
    if (said := _known(said, VERDICTS)) != ALL:
        verdicts = run.log.in_force()
        wanted = {image for image, one in verdicts.items() if said in ("none", "any", one.verdict)}
        found.append(Among(wanted, others=said == "none"))
    return found


def _known(value: str | None, values: dict[str, str]) -> str:
    if value is not None and value not in values.values():  # it comes from the page
        raise AuditError(exits.USAGE, f"choose one of {', '.join(values)}")
    return value or ALL
