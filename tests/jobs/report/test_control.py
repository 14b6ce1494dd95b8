"""Control limits against figures that are known, and how often a quiet night is outside of them."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t

from jobs.report.control import TAIL, Baseline, outside


def chance_of(count: int, rows: int, found: int, of: int) -> float:
    """Beta-binomial probability of a count after ``found`` of ``of``, with Jeffreys prior; by its definition."""
    a, b = found + 0.5, of - found + 0.5
    logarithm = (
        math.log(math.comb(rows, count))
        + math.lgamma(count + a)
        + math.lgamma(rows - count + b)
        - math.lgamma(rows + a + b)
        + math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
    )
    return math.exp(logarithm)


@pytest.mark.parametrize(
    ("counts", "rows", "tonight"), [([2] * 10, 100, 100), ([0] * 8, 50, 200), ([7, 9] * 6, 80, 40)]
)
def test_limits_leave_a_tail_on_either_side(counts: list[int], rows: int, tonight: int) -> None:
    limits = Baseline(counts, [rows] * len(counts)).limits(tonight)
    chances = [chance_of(k, tonight, sum(counts), rows * len(counts)) for k in range(tonight + 1)]
    assert sum(chances) == pytest.approx(1)
    low, high = round(limits.low * tonight), round(limits.high * tonight)
    assert sum(chances[:low]) < TAIL <= sum(chances[: low + 1])
    assert sum(chances[high + 1 :]) < TAIL <= sum(chances[high:])
    assert (limits.chart, limits.nights) == ("p", len(counts))
    assert limits.centre == pytest.approx(float(Fraction(sum(counts), rows * len(counts))))
    assert outside(high / tonight, limits) is None
    assert outside((high + 1) / tonight, limits) == "above"
    assert outside((low - 1) / tonight, limits) == "below"


def test_nights_that_differ_by_more_than_chance_widen_the_limits_as_laney_says() -> None:
    counts, rows = [100, 180, 90, 200, 110, 170, 95, 190, 105, 150], 10_000
    limits = Baseline(counts, [rows] * 10).limits(5_000)
    p = sum(counts) / (10 * rows)
    z = [(count / rows - p) / math.sqrt(p * (1 - p) / rows) for count in counts]
    spread = sum(abs(after - before) for before, after in pairwise(z)) / 9 / 1.128
    assert limits.chart == "p'"
    assert limits.spread == pytest.approx(spread, rel=1e-3)
    deviation = math.sqrt(p * (1 - p) * (1 / 5_000 + 1 / (10 * rows)))
    assert limits.high == pytest.approx(p + t.isf(TAIL, 0.62 * 9) * spread * deviation, rel=1e-3)
    assert limits.low == 0.0
    assert outside(0.03, limits) is None  # twice the rate: above a p-chart's limit, and not unheard of here


def test_nights_without_rows_do_not_count() -> None:
    some = Baseline([1, 0, 2, 0, 3], [100, 0, 100, 0, 100])
    assert (some.nights, some.centre) == (3, 0.02)
    with pytest.raises(ValueError, match="two nights"):
        Baseline([1, 0], [100, 0])


@pytest.mark.parametrize(("varying", "most"), [(0.0, 0.004), (0.2, 0.011)])
def test_quiet_nights_are_outside_as_rarely_as_is_claimed(varying: float, most: float) -> None:
    draw, nights, found = np.random.default_rng(5), 1200, 0
    for _ in range(nights):
        rates = 0.01 * np.exp(draw.normal(0, varying, 21))
        rows = draw.integers(2_000, 8_000, 21)
        counts = draw.binomial(rows, rates)
        limits = Baseline(counts[:-1].tolist(), rows[:-1].tolist()).limits(int(rows[-1]))
        found += outside(float(counts[-1] / rows[-1]), limits) is not None
    assert found / nights <= most


def test_a_rate_that_doubles_is_outside() -> None:
    draw = np.random.default_rng(6)
    found = 0
    for _ in range(50):
        counts = draw.binomial(5_000, [0.01] * 20 + [0.02])
        limits = Baseline(counts[:-1].tolist(), [5_000] * 20).limits(5_000)
        found += outside(float(counts[-1] / 5_000), limits) == "above"
    assert found >= 45
