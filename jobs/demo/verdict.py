"""The demo's results against the known truth: found, missed, false rejects, misrouted, broken files caught."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.demo.archive import Truth

STOPPED = ("anomalous", "review")


@dataclass
class Verdict:
    """Counts of one category. A part counts as stopped if it is anomalous or sent to review."""

    good: int = 0
    defective: int = 0
    found: int = 0
    false_rejects: int = 0
    misrouted: int = 0

    @property
    def missed(self) -> int:
        """Defective parts that passed."""
        return self.defective - self.found


def compare(
    rows: Iterable[Mapping[str, Any]], truth: Iterable[Truth], root: str
) -> tuple[dict[str, Verdict], int, int]:
    """Result rows (uri, status, decision, category) against truth.

    root: the URI that the truth's paths are relative to. Returns verdicts by true category, broken files that failed
    with a typed reason, and broken files in all. Raises KeyError for a row that the truth does not know.
    """
    known = {f"{root.rstrip('/')}/{one.path}": one for one in truth}
    verdicts: dict[str, Verdict] = {}
    broken = sum(1 for one in known.values() if one.broken)
    caught = 0
    for row in rows:
        one = known[row["uri"]]
        if one.broken:
            caught += row["status"] == "failed" and row["error_code"] is not None
            continue
        verdict = verdicts.setdefault(one.category, Verdict())
        stopped = row["decision"] in STOPPED
        verdict.misrouted += row["category"] != one.category
        if one.defect:
            verdict.defective += 1
            verdict.found += stopped
        else:
            verdict.good += 1
            verdict.false_rejects += stopped
    return dict(sorted(verdicts.items())), caught, broken
