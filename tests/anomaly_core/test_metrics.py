"""Figures of images and of pixels, against the same ones written out at length."""

from __future__ import annotations

from itertools import pairwise
from math import comb, hypot

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from anomaly_core.metrics import Rate, average_precision, decided, f1_at, image_auroc, rate, rate_in
from anomaly_core.pixel_metrics import aupro, pixel_auroc, pointing_distances

# ----------------------------------------------------------------------------------------------------- images


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    assert image_auroc([False, False, True], [0.1, 0.2, 0.3]) == 1.0
    assert image_auroc([True, False, False], [0.1, 0.2, 0.3]) == 0.0
    assert image_auroc([False, True, False, True], [0.1, 0.2, 0.3, 0.4]) == 0.75
    assert image_auroc([0, 1], [0.5, 0.5]) == 0.5
    generator = np.random.default_rng(0)
    truth, scores = generator.random(40) < 0.4, generator.integers(0, 10, 40)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    assert image_auroc(truth, scores) == pytest.approx(np.mean(pairs))


def test_average_precision_is_the_mean_precision_at_each_defect() -> None:
    # Defects at ranks 1, 3 and 4: precisions 1, 2/3 and 3/4.
    truth, scores = [True, False, True, True, False], [0.9, 0.8, 0.7, 0.6, 0.5]
    assert average_precision(truth, scores) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_f1_counts_what_is_at_the_threshold_as_anomalous() -> None:
    truth, scores = [True, True, False, False], [0.5, 0.2, 0.5, 0.1]
    assert f1_at(truth, scores, 0.5) == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert f1_at(truth, scores, 0.9) == 0.0


@pytest.mark.parametrize("figure", [image_auroc, average_precision, lambda t, s: f1_at(t, s, 0.5)])
@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_figures_of_one_class_are_refused(figure, truth: list[bool]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="good and defective"):
        figure(truth, [0.1, 0.2][: len(truth)])


def test_rates_count_each_kind() -> None:
    truth = [False, False, False, True, True, True, True]
    said = ["normal", "anomalous", "review", "anomalous", "normal", "review", "normal"]
    found = decided(truth, said)
    assert (found.false_rejects.count, found.false_rejects.of, found.false_rejects.rate) == (1, 3, 1 / 3)
    assert (found.escapes.count, found.escapes.of, found.escapes.rate) == (2, 4, 0.5)
    assert (found.good_in_review.count, found.defective_in_review.count) == (1, 1)
    assert decided([], []).escapes == Rate(0, 0, None, None, None)
    assert str(decided([], []).escapes) == "-"


@pytest.mark.parametrize(("count", "of"), [(0, 20), (1, 20), (13, 83), (20, 20)])
def test_the_interval_is_clopper_and_pearsons(count: int, of: int) -> None:
    found = rate(count, of)
    low = 0.0 if count == 0 else beta.ppf(0.025, count, of - count + 1)
    high = 1.0 if count == of else beta.ppf(0.975, count + 1, of - count)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert str(rate(1, 20)) == "5.0 % (0.1 to 24.9)"


@pytest.mark.parametrize(("of", "population"), [(1, 1), (7, 12), (12, 12), (10, 40), (39, 40)])
def test_the_interval_of_a_finite_population_is_its_exact_one(of: int, population: int) -> None:
    """Every number that is not too unlikely, by counting the samples; and it holds the truth as often as promised."""
    samples = comb(population, of)

    def ways(seen: int, number: int) -> int:
        return comb(number, seen) * comb(population - number, of - seen)

    found = {count: rate_in(count, of, population) for count in range(of + 1)}
    for count, one in found.items():
        likely = [
            number
            for number in range(population + 1)
            if sum(ways(seen, number) for seen in range(count, of + 1)) > 0.025 * samples
            and sum(ways(seen, number) for seen in range(count + 1)) > 0.025 * samples
        ]
        assert (one.low, one.high, one.rate) == (likely[0] / population, likely[-1] / population, count / of)
        assert count <= likely[0] and likely[-1] <= population - (of - count)
    for number in range(population + 1):
        share = number / population
        held = sum(ways(count, number) for count, one in found.items() if one.low <= share <= one.high)  # type: ignore[operator]
        assert held >= 0.95 * samples


def test_a_finite_population_that_is_large_is_like_an_endless_one() -> None:
    found, endless = rate_in(3, 300, 10_000_000), rate(3, 300)
    assert (found.low, found.high) == (pytest.approx(endless.low, rel=1e-4), pytest.approx(endless.high, rel=1e-4))
    assert rate_in(0, 0, 5) == Rate(0, 0, None, None, None)
    with pytest.raises(ValueError, match="2 of a sample of 6 from 5"):
        rate_in(2, 6, 5)


# ----------------------------------------------------------------------------------------------------- pixels


def regions(mask: npt.NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Its regions, by walking to all eight neighbours."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        todo, region = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(region)
    return found


def slow_aupro(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32], limit: float) -> float:
    """Threshold by threshold, region by region."""
    each = [(i, region) for i, mask in enumerate(masks) for region in regions(mask)]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        over = maps >= threshold
        shares = [np.mean([over[i][at] for at in region]) for i, region in each]
        curve.append((float((over & ~masks).sum() / (~masks).sum()), float(np.mean(shares))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + at_limit) / 2
    return area / limit


@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([4, 1000]))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_aupro_is_that_of_every_threshold(seed: int, limit: float, values: int) -> None:
    """values: 4 makes ties of most pixels."""
    generator = np.random.default_rng(seed)
    masks = generator.random((3, 7, 9)) < 0.15
    masks[0, 0, 0], masks[2] = True, False
    maps = (generator.integers(0, values, masks.shape) + 2 * values * masks * (generator.random() < 0.5)).astype("f4")
    assert aupro(masks, maps, limit) == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-12)


def test_aupro_weighs_small_regions_as_much_as_large_ones() -> None:
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :5], masks[1, 9, 9] = True, True
    maps = np.where(masks, 1, 0).astype(np.float32)
    assert aupro(masks, maps) == pytest.approx(1.0)
    maps[1, 9, 9] = -1  # the small one is found last: half of the regions, though 1 of 51 pixels
    assert aupro(masks, maps) == pytest.approx(0.5)
    assert pixel_auroc(masks, maps) == pytest.approx(50 / 51)


def test_what_cannot_be_measured_is_refused() -> None:
    masks, maps = np.zeros((1, 4, 4), dtype=bool), np.zeros((1, 4, 4), dtype=np.float32)
    for figure in (aupro, pixel_auroc):
        with pytest.raises(ValueError, match="good and defective pixels"):
            figure(masks, maps)
        with pytest.raises(ValueError, match="one shape"):
            figure(masks, maps[0])
    masks[0, 0, 0] = True
    with pytest.raises(ValueError, match="limit"):
        aupro(masks, maps, 0.0)


def test_how_far_the_peak_is_from_the_defect() -> None:
    masks, maps = np.zeros((4, 40, 50), bool), np.zeros((4, 40, 50), np.float32)
    masks[:, 10:13, 20:24] = True
    peaks = [(12, 23), (15, 27), (12, 38), (39, 0)]
    for one, at in zip(maps, peaks, strict=True):
        one[at] = 1.0
    maps[0, 30, 40] = 1.0  # as high, but later
    found = pointing_distances(masks, maps)
    assert found.tolist() == [0.0, 5.0, 15.0, hypot(27, 20)]
    masks[2, 38, 0] = True
    assert pointing_distances(masks, maps)[2] == 15.0
    maps[2] = np.roll(maps[2], 1, axis=1)
    assert pointing_distances(masks, maps)[2] == 16.0
    assert pointing_distances(masks[:0], maps[:0]).shape == (0,)


def test_what_nothing_can_point_at_is_refused() -> None:
    masks, maps = np.zeros((2, 8, 8), bool), np.zeros((2, 8, 8), np.float32)
    masks[0, 1, 1] = True
    with pytest.raises(ValueError, match="a defective pixel in every mask"):
        pointing_distances(masks, maps)
    with pytest.raises(ValueError, match="must be of one shape"):
        pointing_distances(masks[:1], maps)
