"""``report.json``: what a report found, for programs: aggregates, rates with their limits, drift, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jobs.audit import exits
from jobs.audit.record import RunRecord
from jobs.report import rates, shifts
from jobs.report.aggregates import Aggregates
from jobs.report.control import NIGHTS_NEEDED
from jobs.report.names import of_group, of_shift
from jobs.report.rates import Rates
from jobs.report.shifts import Calibration, Shifts
from jobs.report.verdict import Verdict

# Earlier nights that a report is held against, unless another number is asked for.
NIGHTS = 30
NAMED = 3  # examples in a sentence


class Findings(BaseModel):
    """The content of report.json.

    verdict: ``alarm`` if scores drift, a rate calls alarm or the error budget is exceeded; ``watch`` if any of them is
    to be watched; else ``quiet``, or ``unknown`` if nothing could be compared at all. sentences: the same for people,
    the worst first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    run_id: str
    verdict: Verdict
    sentences: tuple[str, ...]
    rates: Rates
    drift: Shifts
    aggregates: Aggregates


def findings(
    record: RunRecord,
    night: Aggregates,
    earlier: Sequence[Aggregates],
    calibration: Calibration | None,
    why_no_calibration: str,
) -> Findings:
    """Judge a night. earlier: nights of the same name, in order. calibration: as ``shifts.judged`` takes it."""
    found = rates.judged(night, earlier, rates.series(night, earlier))
    drift = shifts.judged(night, earlier, calibration, why_no_calibration)
    over = record.exit_code == exits.BUDGET_EXCEEDED
    verdict: Verdict = "quiet" if found.by_chance or drift.compared else "unknown"
    if over or found.verdict == "alarm" or drift.verdict == "drift":
        verdict = "alarm"
    elif found.verdict == "watch" or drift.verdict == "watch":
        verdict = "watch"
    sentences = [*_budget(record, over), *_silent(found), *_drift(drift), *_rates(found)]
    if verdict == "quiet":
        sentences.insert(0, "Nothing unusual.")
    if verdict == "unknown":
        sentences.insert(0, "Nothing could be compared, so whether the night was usual cannot be told.")
    if found.nights < NIGHTS_NEEDED:
        sentences.append(
            f"There are {found.nights} earlier nights of this name, too few to say what is usual ({NIGHTS_NEEDED} are "
            "needed)."
        )
    return Findings(
        run_id=record.run_id,
        verdict=verdict,
        sentences=tuple(sentences),
        rates=found,
        drift=drift,
        aggregates=night,
    )


def _budget(record: RunRecord, over: bool) -> list[str]:
    return [f"The error budget is exceeded: {record.exit_reason}."] if over else []


def _silent(found: Rates) -> list[str]:
    if not found.silent:
        return []
    of = _listed([of_group(one.of, one.names) for one in found.silent])
    return [f"No image {of}, though each of the last {NIGHTS_NEEDED} nights had some."]


def _drift(drift: Shifts) -> list[str]:
    sentences = []
    for verdict, said in (("drift", "Scores have drifted"), ("watch", "Scores have moved a little")):
        # A line says more than all lines together, and the largest move most.
        called = sorted(
            (one for one in drift.compared if one.verdict == verdict),
            key=lambda one: (one.line is None, -one.distance),
        )
        if called:
            sentences.append(f"{said}: {_listed([of_shift(one) for one in called])}.")
    return sentences


def _rates(found: Rates) -> list[str]:
    beyond = sorted(found.outside, key=lambda one: not one.alarm)
    if not beyond:
        return []
    said = [
        f"{one.measure} {of_group(one.of, one.names)} {100 * (one.rate or 0):.3g} %, {one.outside} "
        f"{100 * (one.limits.high if one.outside == 'above' else one.limits.low):.3g} %"
        for one in beyond
        if one.limits
    ]
    return [
        f"{len(beyond)} of {sum(one.limits is not None for one in found.rates)} rates "
        f"{'is outside of its limits' if len(beyond) == 1 else 'are outside of their limits'}, "
        f"about {found.by_chance:.2g} would be by chance: {_listed(said)}."
    ]


def _listed(said: Sequence[str]) -> str:
    more = len(said) - NAMED
    return "; ".join([*said[:NAMED], *([f"and {more} more"] if more > 0 else [])])
