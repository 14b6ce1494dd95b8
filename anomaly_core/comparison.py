"""Figures by which two runs are compared: shares of independent samples, and decisions on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, fisher_exact, kstwo

from anomaly_core.metrics import CONFIDENCE

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """Shares of two independent samples a and b, and the second less the first with its interval.

    p_value: Fisher's exact test, two-sided. A share is None where its sample is empty, all others if one is.
    """

    count_a: int
    of_a: int
    count_b: int
    of_b: int
    rate_a: float | None
    rate_b: float | None
    change: float | None
    low: float | None
    high: float | None
    p_value: float | None


def difference(count_a: int, of_a: int, count_b: int, of_b: int, confidence: float = CONFIDENCE) -> Difference:
    """Two shares and their difference.

    The interval is method 10 of Newcombe 1998 (Statistics in Medicine 17, 873-890): Wilson's intervals of the two
    shares, put together without a correction for continuity. Raises ValueError for a count that is none of its sample.
    """
    for count, of in ((count_a, of_a), (count_b, of_b)):
        if not 0 <= count <= of:
            raise ValueError(f"{count} of a sample of {of}")
    a, b = (count / of if of else None for count, of in ((count_a, of_a), (count_b, of_b)))
    if a is None or b is None:
        return Difference(count_a, of_a, count_b, of_b, a, b, None, None, None, None)
    low_a, high_a = _wilson(count_a, of_a, confidence)
    low_b, high_b = _wilson(count_b, of_b, confidence)
    p_value = float(fisher_exact([[count_a, of_a - count_a], [count_b, of_b - count_b]]).pvalue)
    low, high = b - a - math.hypot(b - low_b, high_a - a), b - a + math.hypot(high_b - b, a - low_a)
    return Difference(count_a, of_a, count_b, of_b, a, b, b - a, low, high, p_value)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values adjusted for their number (Holm 1979), in their order; None stays, and does not count.

    Where those below SIGNIFICANCE are called beyond chance, one call or more is wrong with that probability at most.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(sorted(known)):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[place] = least
    return adjusted


def mcnemar(only_a: int, only_b: int) -> float:
    """p-value of McNemar's exact test, two-sided: images that only one of two runs calls anomalous."""
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def ks_p_value(distance: float, of_a: int, of_b: int) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test, two-sided, by the asymptotic distribution of the distance
    between two empirical distributions of so many scores (Hodges 1958)."""
    return float(np.clip(kstwo.sf(distance, max(1, round(of_a * of_b / (of_a + of_b)))), 0, 1))


def _wilson(count: int, of: int, confidence: float) -> tuple[float, float]:
    interval = binomtest(count, of).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
