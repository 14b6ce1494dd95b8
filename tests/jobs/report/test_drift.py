"""Distances of scores against scipy and by hand; what is called drift, and how rarely a quiet night is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from jobs.report.drift import (
    DRIFT_DISTANCE,
    WATCH_DISTANCE,
    Distances,
    Restlessness,
    distances,
    limits,
    restlessness,
)
from jobs.report.grid import BINS, EDGES, Histogram, below, counted, median

DRAW = np.random.default_rng


def test_the_grid_counts_every_score_once() -> None:
    scores = [0.0, 1e-9, 1e-8, 0.5, 0.999, 1.0, 1e7, 1e12]
    counts = counted(scores)
    assert counts.sum() == len(scores)
    assert counts[0] == 3 and counts[-1] == 1
    (at,) = np.nonzero(counted([0.5]))
    assert EDGES[at[0]] <= 0.5 < EDGES[at[0] + 1] < 0.505
    assert Histogram.of(counts).dense().tolist() == counts.tolist()
    assert Histogram.of(counted([])).dense().sum() == 0
    with pytest.raises(ValueError, match="not on the grid"):
        Histogram(first=BINS - 1, counts=(1, 1)).dense()


def test_below_a_threshold_and_in_the_middle() -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert below(counted(scores), 0.35).sum() == 3
    assert median(counted(scores)) == pytest.approx(0.3, rel=0.01)
    with pytest.raises(ValueError, match="median"):
        median(counted([]))


def test_distance_is_scipys() -> None:
    for seed in range(5):
        reference, scores = DRAW(seed).gamma(4, 0.02, 700), DRAW(seed + 100).gamma(4, 0.023, 300)
        found = distances(counted(reference), counted(scores))
        assert found.distance == pytest.approx(ks_2samp(reference, scores).statistic, abs=0.015)  # a bin of the grid
        bins = [np.repeat(np.arange(BINS), counted(some)) for some in (reference, scores)]
        assert found.distance == pytest.approx(ks_2samp(*bins).statistic, abs=1e-12)
        assert found.noise == pytest.approx(1 / 700 + 1 / 300)


def test_index_by_hand() -> None:
    # Ten values, a hundred of each, are the tenths; the other sample has them 5, 15, ... per cent.
    values = [10.0 ** (k / 10) for k in range(10)]
    reference = counted([value for value in values for _ in range(100)])
    shares = [0.05, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    scores = counted([value for value, share in zip(values, shares, strict=True) for _ in range(round(2000 * share))])
    p = [(100 + 0.5) / (1000 + 5)] * 10
    q = [(2000 * share + 0.5) / (2000 + 5) for share in shares]
    by_hand = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    found = distances(reference, scores)
    assert found.parts == 10
    assert found.index == pytest.approx(by_hand, rel=1e-12)
    assert 0.05 < by_hand < 0.06  # (0.05 - 0.1) ln 0.5 + (0.15 - 0.1) ln 1.5, all but the half counts
    assert found.distance == pytest.approx(0.05)


def test_limits_of_both_distances_are_of_the_same_shift() -> None:
    for shift, limit in ((math.sqrt(0.1), WATCH_DISTANCE), (0.5, DRIFT_DISTANCE)):
        base = DRAW(1).normal(0, 0.2, 400_000)
        found = distances(counted(10.0**base), counted(10.0 ** (base + 0.2 * shift)))
        assert found.distance == pytest.approx(limit, abs=0.005)
        assert found.index == pytest.approx(shift**2, rel=0.1)  # tenths see a little less than all scores


def test_small_samples_have_wider_limits_and_large_ones_the_customary() -> None:
    small = limits(Distances(0, 10, 0, 1 / 60 + 1 / 60), Restlessness(), 0.001)
    assert small.watch_index == small.drift_index == pytest.approx(27.877 / 30, rel=1e-4)  # chi-square of 9, 0.1 %
    assert small.watch_distance == pytest.approx(1.9495 / math.sqrt(30), rel=1e-4)  # Kolmogorov's distribution
    large = limits(Distances(0, 10, 0, 2e-6), Restlessness(), 0.001)
    assert (large.watch_index, large.drift_index) == (0.1, 0.25)
    assert (large.watch_distance, large.drift_distance) == (WATCH_DISTANCE, DRIFT_DISTANCE)
    assert large.verdict(Distances(0.02, 10, 0.02, 2e-6)) == "none"  # a p-value of nothing, and no effect
    assert large.verdict(Distances(0.02, 10, 0.13, 2e-6)) == "watch"
    assert large.verdict(Distances(0.3, 10, 0.02, 2e-6)) == "drift"


def test_nights_that_differ_among_themselves_widen_the_limits() -> None:
    draw = DRAW(2)
    restless = restlessness([counted(draw.gamma(4, 0.02 * math.exp(move), 2000)) for move in draw.normal(0, 0.15, 20)])
    calm = restlessness([counted(draw.gamma(4, 0.02, 2000)) for _ in range(20)])
    assert restless.nights == calm.nights == 20
    assert restless.index > 10 * calm.index and restless.square > 10 * calm.square
    found = distances(counted(draw.gamma(4, 0.02, 40_000)), counted(draw.gamma(4, 0.02 * 1.25, 2000)))
    assert limits(found, calm, 0.001).verdict(found) == "watch"
    assert limits(found, restless, 0.001).verdict(found) == "none"


def test_too_few_scores_are_not_compared() -> None:
    with pytest.raises(ValueError, match="50 are needed"):
        distances(counted([1.0] * 49), counted([1.0] * 500))


def test_scores_that_are_all_alike_are_compared() -> None:
    found = distances(counted([0.1] * 100), counted([0.1] * 100))
    assert (found.distance, found.parts) == (0, 2)
    assert found.index == 0
    assert distances(counted([0.1] * 100), counted([0.2] * 100)).distance == 1
