"""The times that ``--since`` may name."""

from __future__ import annotations

from datetime import datetime

from manifests.readers.values import BadValue, parse_time
from manifests.schema import ManifestError

LAST_RUN = "last-run"


def parse_since(text: str) -> datetime | None:
    """The time that is meant, UTC if it names no zone; None for last-run. Raises ManifestError for anything else."""
    if text == LAST_RUN:
        return None
    try:
        time = parse_time(text)
    except BadValue as error:
        raise ManifestError(f"{text!r}: write {LAST_RUN}, or a time such as 2025-03-01T22:00Z") from error
    if time is None:
        raise ManifestError(f"{text!r}: write {LAST_RUN}, or a time such as 2025-03-01T22:00Z")
    return time
