"""Control limits of rates: what a rate may be tonight, if the night is like the earlier ones.

The limits are those of a p-chart, as prediction limits: the beta-binomial distribution of tonight's count, given the
earlier ones (Jeffreys prior), knows how many nights there were, and is right for rates near 0, where three standard
deviations are not. Where the earlier nights differ by more than chance, limits of a p-chart are too narrow; then those
of Laney's p' chart (Laney 2002) are used where they are wider: z-scores of the nights have a spread of their own, from
their moving ranges, and with few nights Student's t instead of the normal quantile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.stats import betabinom, chi2, t

# Fewer say too little of what is usual.
NIGHTS_NEEDED = 8
# Of a quiet night's rate, to lie beyond one of its two limits: three standard deviations of a normal distribution.
TAIL = 0.00135
# p' is used where a dispersion test has a smaller p-value: limits that are too wide cost less than limits that are too
# narrow, and with few nights the test sees little.
DISPERSED = 0.5
# The mean distance of two standard normal values, and the degrees of freedom of a spread from moving ranges, by value.
RANGE_FACTOR, RANGE_FREEDOM = 2 / math.sqrt(math.pi), 0.62
_FAR = 14.0  # standard deviations; further out, a count has no probability to speak of

Chart = Literal["p", "p'"]


class Limits(BaseModel):
    """What a rate may be: low and high included. spread: Laney's sigma z, the spread of the nights' z-scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chart: Chart
    nights: int
    centre: float
    low: float
    high: float
    spread: float


class Baseline:
    """Earlier nights of a rate. counts, rows: int (nights,), in order; nights without rows do not count.

    Raises ValueError with fewer than two nights that have rows.
    """

    def __init__(self, counts: Sequence[int], rows: Sequence[int]):
        there = np.asarray(rows, np.int64) > 0
        self.counts, self.rows = np.asarray(counts, np.int64)[there], np.asarray(rows, np.int64)[there]
        self.nights = len(self.rows)
        if self.nights < 2:
            raise ValueError("limits need at least two nights")
        self.centre = float(self.counts.sum() / self.rows.sum())
        z = self._z()
        self.spread = float(np.abs(np.diff(z)).mean() / RANGE_FACTOR)
        varied = chi2.sf(float((z**2).sum()), self.nights - 1) < DISPERSED
        self.chart: Chart = "p'" if varied and self.spread > 1 else "p"

    def limits(self, rows: int, tail: float = TAIL) -> Limits:
        """Of a night with so many rows. tail: probability of a quiet night beyond each of the two."""
        low, high = self._binomial(rows, tail)
        if self.chart == "p'":
            far = float(t.isf(tail, max(1.0, RANGE_FREEDOM * (self.nights - 1)))) * self.spread * self._deviation(rows)
            low, high = min(low, self.centre - far), max(high, self.centre + far)
        return Limits(
            chart=self.chart,
            nights=self.nights,
            centre=self.centre,
            low=max(0.0, low),
            high=min(1.0, high),
            spread=self.spread,
        )

    def _z(self) -> npt.NDArray[np.float64]:
        deviation = np.sqrt(self.centre * (1 - self.centre) / self.rows)
        if not deviation.any():
            return np.zeros(self.nights)
        z: npt.NDArray[np.float64] = (self.counts / self.rows - self.centre) / deviation
        return z

    def _deviation(self, rows: int) -> float:
        return math.sqrt(self.centre * (1 - self.centre) * (1 / rows + 1 / int(self.rows.sum())))

    def _binomial(self, rows: int, tail: float) -> tuple[float, float]:
        """The smallest and the largest share whose counts are not in a tail."""
        found, of = int(self.counts.sum()), int(self.rows.sum())
        first, second = found + 0.5, of - found + 0.5
        mean, deviation = float(betabinom.mean(rows, first, second)), float(betabinom.std(rows, first, second))
        start, stop = max(0, math.floor(mean - _FAR * deviation)), min(rows, math.ceil(mean + _FAR * deviation) + 10)
        counts = np.arange(start, stop + 1)
        chance = betabinom.pmf(counts, rows, first, second)
        # Of both tails: what lies below a count, and what lies above it.
        at_most, at_least = np.cumsum(chance), np.cumsum(chance[::-1])[::-1]
        low = counts[np.argmax(at_most >= tail)]
        high = counts[len(counts) - 1 - np.argmax(at_least[::-1] >= tail)]
        return int(low) / rows, int(high) / rows


def outside(rate: float, limits: Limits) -> Literal["above", "below"] | None:
    """On which side a rate lies beyond its limits."""
    return "above" if rate > limits.high else "below" if rate < limits.low else None
