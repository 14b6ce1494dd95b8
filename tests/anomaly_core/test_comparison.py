"""Figures of two samples against published ones, and against scipy on the full data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from anomaly_core.comparison import difference, holm, ks_p_value, mcnemar


# Newcombe 1998, table II, method 10: of the first share less the second.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_newcombes_interval(first: tuple[int, int], second: tuple[int, int], low: float, high: float) -> None:
    found = difference(*second, *first)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert found.change == pytest.approx(first[0] / first[1] - second[0] / second[1])
    turned = difference(*first, *second)
    assert (turned.low, turned.high) == (pytest.approx(-found.high or 0), pytest.approx(-found.low or 0))


def test_fishers_test_of_the_tea_that_a_lady_tasted() -> None:
    assert difference(3, 4, 1, 4).p_value == pytest.approx(34 / 70)
    assert difference(0, 1_000_000, 0, 1_000_000).p_value == 1


def test_an_empty_sample_has_no_share_and_no_difference() -> None:
    found = difference(0, 0, 3, 4)
    assert (found.rate_a, found.rate_b) == (None, 0.75)
    assert (found.change, found.low, found.high, found.p_value) == (None, None, None, None)
    with pytest.raises(ValueError, match="5 of a sample of 4"):
        difference(1, 4, 5, 4)


def test_holms_adjustment() -> None:
    # By hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not be less than the one before.
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == [0.03, 0.06, None, 0.06, 0.02]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]


def test_mcnemars_exact_test() -> None:
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 0) == 1


@pytest.mark.parametrize(("a", "b"), [(333, 412), (1, 1), (1, 90), (5000, 5000)])
def test_the_p_value_of_kolmogorov_and_smirnov(a: int, b: int) -> None:
    generator = np.random.default_rng(a)
    first, second = generator.normal(size=a), generator.normal(0.1, size=b)
    distance = ks_2samp(first, second).statistic
    found = ks_p_value(distance, a, b)
    assert 0 <= found <= 1
    if a * b > a + b:  # for less scipy's own asymptotic one is no number
        assert found == pytest.approx(ks_2samp(first, second, method="asymp").pvalue)
