"""Whether scores have moved: those of a night against the calibration's, and against the earlier nights'.

Two distances, both measures of an effect and not of its significance, since with a million rows every difference is
significant: the population stability index over tenths of the reference, with its customary limits 0.1 and 0.25, and
the Kolmogorov-Smirnov distance D, whose limits are those of a shift of normal scores with that index (which is then the
square of the shift in standard deviations). Where samples are small, both are large by chance, so a limit is never
below what chance gives: of the index, (B - 1)-fold chi-square times 1/n + 1/m (Yurdakul 2018); of D, Kolmogorov's
distribution. And nights differ a little from each other without anything being wrong: by how much more than chance each
earlier night differs from the others is added to the limits.

In simulations with limits for one night in a hundred, at most that many quiet nights were called where nights differ by
chance only. Where the true scores move by 5 or 10 % from night to night, at most 1 % were called drift with 20 earlier
nights, and up to 4 % (8 earlier nights: 11 %) watch, most with some hundred scores on a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import chi2, kstwobign, norm, t

from jobs.report.grid import BINS, Counts

# Scores that a comparison needs on either side.
SCORES_NEEDED = 50
TENTHS, TENTHS_NEEDED = 10, 100  # with fewer scores, fifths
WATCH_INDEX, DRIFT_INDEX = 0.1, 0.25
RESTLESS = 0.3  # p-value below which earlier nights differ by more than chance


def _distance(index: float) -> float:
    """D of two normal distributions of the same spread, shifted so far that their stability index is ``index``."""
    return float(2 * norm.cdf(math.sqrt(index) / 2) - 1)


WATCH_DISTANCE, DRIFT_DISTANCE = _distance(WATCH_INDEX), _distance(DRIFT_INDEX)  # 0.126 and 0.197
# Of Kolmogorov's distribution: the mean of its square.
_KOLMOGOROV_SQUARE = math.pi**2 / 12

Verdict = Literal["none", "watch", "drift"]


@dataclass(frozen=True)
class Distances:
    """How far two samples are apart. index: population stability index over so many ``parts`` of the reference.
    distance: Kolmogorov-Smirnov's D. noise: 1/n + 1/m."""

    index: float
    parts: int
    distance: float
    noise: float

    @property
    def by_chance(self) -> tuple[float, float]:
        """What index and squared distance are on average for two samples of the same distribution."""
        return (self.parts - 1) * self.noise, _KOLMOGOROV_SQUARE * self.noise


@dataclass(frozen=True)
class Restlessness:
    """By how much earlier nights differ from each other, beyond chance, in index and squared distance; 0 if a
    dispersion test finds no more than chance: what it overlooks is little beside the limits."""

    index: float = 0.0
    square: float = 0.0
    nights: int = 0


def distances(reference: Counts, scores: Counts) -> Distances:
    """Of scores on the grid, int64 (BINS,) each. Raises ValueError with fewer than SCORES_NEEDED on a side."""
    n, m = int(reference.sum()), int(scores.sum())
    if min(n, m) < SCORES_NEEDED:
        raise ValueError(f"{n} and {m} scores, {SCORES_NEEDED} are needed on either side")
    parts = TENTHS if min(n, m) >= TENTHS_NEEDED else TENTHS // 2
    before, after = np.cumsum(reference) / n, np.cumsum(scores) / m
    edges = np.unique(np.searchsorted(before, np.arange(1, parts) / parts))
    index = _index(np.add.reduceat(reference, _starts(edges)), np.add.reduceat(scores, _starts(edges)))
    return Distances(index, len(_starts(edges)), float(np.abs(before - after).max()), 1 / n + 1 / m)


def restlessness(nights: Sequence[Counts]) -> Restlessness:
    """Of earlier nights, each against the sum of the others; those with too few scores are passed over."""
    total = np.sum(nights, axis=0) if nights else np.zeros(BINS, np.int64)
    found = [
        distances(total - one, one) for one in nights if min(int(one.sum()), int((total - one).sum())) >= SCORES_NEEDED
    ]
    spread = sum(one.index / one.noise for one in found)
    if not found or chi2.sf(spread, sum(one.parts - 1 for one in found)) > RESTLESS:
        return Restlessness(nights=len(found))
    index = float(np.mean([one.index - one.by_chance[0] for one in found]))
    square = float(np.mean([one.distance**2 - one.by_chance[1] for one in found]))
    return Restlessness(max(0.0, index), max(0.0, square), len(found))


@dataclass(frozen=True)
class DriftLimits:
    """From where on a distance is called watch, and drift."""

    watch_index: float
    drift_index: float
    watch_distance: float
    drift_distance: float

    def verdict(self, found: Distances) -> Verdict:
        """The worse one of both distances."""
        if found.index >= self.drift_index or found.distance >= self.drift_distance:
            return "drift"
        return "watch" if found.index >= self.watch_index or found.distance >= self.watch_distance else "none"


def limits(found: Distances, restless: Restlessness, tail: float) -> DriftLimits:
    """For two samples of these sizes. tail: probability that chance alone brings one distance above its limit."""
    factor = float(t.isf(tail / 2, restless.nights - 1)) ** 2 if restless.nights > 1 else 0.0
    index = float(chi2.isf(tail, found.parts - 1)) * found.noise + factor * restless.index
    distance = math.sqrt(float(kstwobign.isf(tail)) ** 2 * found.noise + factor * restless.square)
    return DriftLimits(
        max(WATCH_INDEX, index),
        max(DRIFT_INDEX, index),
        max(WATCH_DISTANCE, distance),
        max(DRIFT_DISTANCE, distance),
    )


def _starts(edges: Counts) -> Counts:
    """First bins of the parts that end with these bins."""
    return np.concatenate([[0], edges[edges < BINS - 1] + 1])


def _index(reference: Counts, scores: Counts) -> float:
    # Half a score is added to each part: one without any would make the index infinite.
    p = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    q = (scores + 0.5) / (scores.sum() + 0.5 * len(scores))
    return float(((q - p) * np.log(q / p)).sum())
