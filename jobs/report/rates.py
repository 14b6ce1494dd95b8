"""Rates of a night, of everything and by category, line and camera, held against those of the earlier nights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jobs.report.aggregates import Aggregates, Counts, Kind
from jobs.report.control import NIGHTS_NEEDED, TAIL, Baseline, Limits, outside

Measure = Literal["anomalous", "review", "failed"]
MEASURES: tuple[Measure, ...] = ("anomalous", "review", "failed")
# Of a quiet night, to call alarm: one of all the rates beyond limits that are wider the more rates there are.
ALARM = 0.01


class Rate(BaseModel):
    """A rate of the night. of: of ``all`` rows, or of the group of that kind with these names.

    count of rows: failed images of all but duplicates; anomalous or in review of those that were looked at. rate is
    None without rows. limits: None with a reason in ``without``. outside: on which side it lies beyond them. alarm:
    whether it does so by more than chance lets one of all the night's rates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: Measure
    of: Literal["all"] | Kind
    names: tuple[str, ...]
    count: int
    rows: int
    rate: float | None
    limits: Limits | None = None
    without: str | None = None
    outside: Literal["above", "below"] | None = None
    alarm: bool = False


class Silent(BaseModel):
    """A group without any row this night, though it had some in each of so many nights before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Kind
    names: tuple[str, ...]
    nights: int


class Rates(BaseModel):
    """All rates of a night. verdict: ``alarm`` if one of them calls it, ``watch`` if one is outside of its limits or a
    group is silent.

    by_chance: how many of those with limits a quiet night would have outside. nights: earlier ones that were held
    against; other_decisions: those of them that were decided otherwise, by another bundle or with other thresholds,
    and count for failed rows only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Literal["none", "watch", "alarm"]
    nights: int
    other_decisions: int
    by_chance: float
    rates: tuple[Rate, ...]
    silent: tuple[Silent, ...]

    @property
    def outside(self) -> list[Rate]:
        """Those that lie outside of their limits."""
        return [rate for rate in self.rates if rate.outside]


@dataclass(frozen=True)
class Series:
    """A rate through the nights: of each, its date, count and rows, of the earlier ones only those that it can be held
    against; the last one is the night in question."""

    dates: tuple[str, ...]
    counts: tuple[int, ...]
    rows: tuple[int, ...]


Key = tuple[Measure, str, tuple[str, ...]]


def series(night: Aggregates, earlier: Sequence[Aggregates]) -> dict[Key, Series]:
    """Every rate of a night, with those of the earlier nights, in their order."""
    decided_alike = [one for one in earlier if same_decisions(one, night)]
    found: dict[Key, Series] = {}
    for measure in MEASURES:
        nights = [*(earlier if measure == "failed" else decided_alike), night]
        counted = [dict(_counts(one)) for one in nights]
        for kind, names in counted[-1]:
            pairs = [_rate(measure, one.get((kind, names), Counts())) for one in counted]
            there = [i for i, (_, rows) in enumerate(pairs) if rows or i == len(pairs) - 1]
            found[measure, kind, names] = Series(
                tuple(nights[i].run_date for i in there),
                tuple(pairs[i][0] for i in there),
                tuple(pairs[i][1] for i in there),
            )
    return found


def judged(night: Aggregates, earlier: Sequence[Aggregates], all_series: Mapping[Key, Series]) -> Rates:
    """The rates of a night with their limits."""
    baselines = {key: Baseline(one.counts[:-1], one.rows[:-1]) for key, one in all_series.items() if _enough(one)}
    tail = ALARM / 2 / max(1, len(baselines))
    rates = [_judged(key, one, baselines.get(key), tail) for key, one in all_series.items()]
    beyond, gone = [rate for rate in rates if rate.outside], tuple(_silent(night, earlier))
    return Rates(
        verdict="alarm" if any(rate.alarm for rate in beyond) else "watch" if beyond or gone else "none",
        nights=len(earlier),
        other_decisions=sum(not same_decisions(one, night) for one in earlier),
        by_chance=round(2 * TAIL * len(baselines), 3),
        rates=tuple(rates),
        silent=gone,
    )


def same_decisions(one: Aggregates, other: Aggregates) -> bool:
    """Whether two nights were decided alike: rates of decisions are only then comparable."""
    theirs = other.thresholds
    shared = {category: value for category, value in one.thresholds.items() if category in theirs}
    return (one.scoring, one.decision) == (other.scoring, other.decision) and all(
        theirs[category] == value for category, value in shared.items()
    )


def _silent(night: Aggregates, earlier: Sequence[Aggregates]) -> Iterator[Silent]:
    """A rate of no rows has no limits to be outside of: a camera that is dead would go unnoticed."""
    if len(earlier) < NIGHTS_NEEDED:
        return
    lines = set[tuple[str, ...]]()  # that are silent: their cameras are too
    for kind, groups in night.groups.items():
        if kind in night.not_kept:  # it may be one of the small groups that are not told apart
            continue
        always = set.intersection(*({one.names for one in each.groups[kind]} for each in earlier[-NIGHTS_NEEDED:]))
        for names in sorted(always - {one.names for one in groups}):
            if names[-1] and names[:-1] not in lines:
                lines |= {names} if kind == "line" else set()
                yield Silent(of=kind, names=names, nights=NIGHTS_NEEDED)


def _enough(one: Series) -> bool:
    return len(one.rows) > NIGHTS_NEEDED and one.rows[-1] > 0


def _judged(key: Key, one: Series, baseline: Baseline | None, tail: float) -> Rate:
    measure, kind, names = key
    count, rows = one.counts[-1], one.rows[-1]
    rate = Rate.model_validate(
        {"measure": measure, "of": kind, "names": names, "count": count, "rows": rows}
        | {"rate": count / rows if rows else None}
    )
    if rate.rate is None:
        return rate.model_copy(update={"without": "no rows this night"})
    if baseline is None:
        said = f"{len(one.rows) - 1} earlier nights, {NIGHTS_NEEDED} are needed"
        return rate.model_copy(update={"without": said})
    limits, side = (limits := baseline.limits(rows)), outside(rate.rate, limits)
    alarm = side is not None and outside(rate.rate, baseline.limits(rows, tail)) is not None
    return rate.model_copy(update={"limits": limits, "outside": side, "alarm": alarm})


def _counts(night: Aggregates) -> Iterator[tuple[tuple[str, tuple[str, ...]], Counts]]:
    yield ("all", ()), night.total
    for kind, groups in night.groups.items():
        if any(group.names[-1] for group in groups):  # else nothing is told apart: they are rows of the kind before
            for group in groups:
                yield (kind, group.names), group.counts


def _rate(measure: Measure, counts: Counts) -> tuple[int, int]:
    if measure == "failed":
        return counts.failed, counts.images
    return getattr(counts, measure), counts.decided
