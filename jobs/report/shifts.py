"""The scores of a night, category by category and line by line, held against calibration and earlier nights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from jobs.report.aggregates import Aggregates, CategoryScores
from jobs.report.control import NIGHTS_NEEDED
from jobs.report.drift import SCORES_NEEDED, DriftLimits, Restlessness, Verdict, distances, limits, restlessness
from jobs.report.grid import Counts, Histogram, below, counted, median

# Of a quiet night, to call anything at all; shared by all distances of the night.
FALSE_ALARMS = 0.01
# More scores than this at or above the threshold, and there is nothing normal to compare with the calibration.
MOST_ANOMALOUS = 0.5

VERDICTS: tuple[Verdict, ...] = ("none", "watch", "drift")
Against = Literal["calibration", "earlier nights"]
Calibration = Mapping[str, Sequence[float]]


class Shift(BaseModel):
    """A comparison. line: None for all lines; '' for rows without one. scores, reference: how many on either side.

    Against the calibration, which has seen normal images only, both sides are cut at the threshold; share_above:
    what of the night lies beyond. ratio: median of the night / median of the reference. index: population stability
    index; distance: Kolmogorov-Smirnov's D; each with the limits from where on it is watch, and drift.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str
    line: str | None
    against: Against
    verdict: Verdict
    scores: int
    reference: int
    share_above: float
    ratio: float
    index: float
    watch_index: float
    drift_index: float
    distance: float
    watch_distance: float
    drift_distance: float

    @property
    def rank(self) -> int:
        """0 for none, 1 for watch, 2 for drift."""
        return VERDICTS.index(self.verdict)


class NotCompared(BaseModel):
    """A comparison that could not be made, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str
    line: str | None
    against: Against
    why: str


class Shifts(BaseModel):
    """All comparisons of a night. verdict: the worst. nights: earlier ones whose scores are comparable;
    other_scoring: those that another bundle or precision scored, which are not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    nights: int
    other_scoring: int
    compared: tuple[Shift, ...]
    not_compared: tuple[NotCompared, ...]

    @property
    def called(self) -> list[Shift]:
        """Those that are watch or drift."""
        return [one for one in self.compared if one.verdict != "none"]


@dataclass(frozen=True)
class _Pair:
    """Two samples on the grid to compare, and how restless earlier nights are."""

    category: str
    line: str | None
    against: Against
    reference: Counts
    scores: Counts
    share_above: float
    restless: Restlessness


def judged(night: Aggregates, earlier: Sequence[Aggregates], calibration: Calibration | None, why_none: str) -> Shifts:
    """Compare the scores of a night.

    calibration: by category, scores of normal images that its autoencoder has not seen; None with a reason why there
    are none. earlier: of the same name, those that another bundle scored among them.
    """
    alike = [one for one in earlier if one.scoring == night.scoring]
    found = [one for scores in night.scores for one in _of_category(scores, alike, calibration, why_none)]
    pairs = [one for one in found if isinstance(one, _Pair)]
    without = [one for one in found if isinstance(one, NotCompared)]
    tail = FALSE_ALARMS / 2 / max(1, len(pairs))  # two distances each
    compared = [_shift(pair, tail) for pair in pairs]
    return Shifts(
        verdict=VERDICTS[max((one.rank for one in compared), default=0)],
        nights=len(alike),
        other_scoring=len(earlier) - len(alike),
        compared=tuple(compared),
        not_compared=tuple(without),
    )


def _of_category(
    scores: CategoryScores, earlier: Sequence[Aggregates], calibration: Calibration | None, why_none: str
) -> Iterator[_Pair | NotCompared]:
    category = scores.category
    nights = [one.histogram.dense() for night in earlier for one in night.scores if one.category == category]
    restless = restlessness(nights) if len(nights) >= NIGHTS_NEEDED else Restlessness()
    tonight = scores.histogram.dense()
    if calibration is None or not calibration.get(category):
        yield NotCompared(category=category, line=None, against="calibration", why=why_none)
    else:
        yield _with_calibration(scores, tonight, counted(calibration[category]), restless)
    yield _with_nights(category, None, tonight, nights, restless, scores.above)
    of_lines: dict[str, list[Histogram]] = {}
    for night in earlier:
        for one in night.scores:
            if one.category == category:
                for line in one.lines:
                    of_lines.setdefault(line.line, []).append(line.histogram)
    for line in scores.lines if len(scores.lines) > 1 else ():  # the only line is the category itself
        before = [histogram.dense() for histogram in of_lines.get(line.line, [])]
        theirs = restlessness(before) if len(before) >= NIGHTS_NEEDED else Restlessness()
        yield _with_nights(category, line.line, line.histogram.dense(), before, theirs, line.above)


def _with_calibration(
    scores: CategoryScores, tonight: Counts, reference: Counts, restless: Restlessness
) -> _Pair | NotCompared:
    category, share = scores.category, scores.above / int(tonight.sum())
    before, after = below(reference, scores.threshold), below(tonight, scores.threshold)
    if share > MOST_ANOMALOUS and tonight.sum() >= SCORES_NEEDED:
        # Parts that are all bad, or scores that have all moved: what is below the threshold does not tell which.
        before, after = reference, tonight
    fewer = min(int(before.sum()), int(after.sum()))
    if fewer < SCORES_NEEDED:
        said = f"{fewer} scores on one side below the threshold, {SCORES_NEEDED} are needed"
        return NotCompared(category=category, line=None, against="calibration", why=said)
    return _Pair(category, None, "calibration", before, after, share, restless)


def _with_nights(
    category: str, line: str | None, tonight: Counts, nights: list[Counts], restless: Restlessness, above: int
) -> _Pair | NotCompared:
    if len(nights) < NIGHTS_NEEDED:
        said = f"{len(nights)} earlier nights with scores, {NIGHTS_NEEDED} are needed"
        return NotCompared(category=category, line=line, against="earlier nights", why=said)
    reference = np.sum(nights, axis=0)
    fewer = min(int(reference.sum()), int(tonight.sum()))
    if fewer < SCORES_NEEDED:
        said = f"{fewer} scores on one side, {SCORES_NEEDED} are needed"
        return NotCompared(category=category, line=line, against="earlier nights", why=said)
    return _Pair(category, line, "earlier nights", reference, tonight, above / int(tonight.sum()), restless)


def _shift(pair: _Pair, tail: float) -> Shift:
    found = distances(pair.reference, pair.scores)
    allowed: DriftLimits = limits(found, pair.restless, tail)
    return Shift(
        category=pair.category,
        line=pair.line,
        against=pair.against,
        verdict=allowed.verdict(found),
        scores=int(pair.scores.sum()),
        reference=int(pair.reference.sum()),
        share_above=pair.share_above,
        ratio=median(pair.scores) / median(pair.reference),
        index=found.index,
        watch_index=allowed.watch_index,
        drift_index=allowed.drift_index,
        distance=found.distance,
        watch_distance=allowed.watch_distance,
        drift_distance=allowed.drift_distance,
    )
