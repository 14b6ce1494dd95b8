"""Heatmaps: colours mean the same at every threshold, and good parts are left untouched."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from anomaly_core import heatmap as module
from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from anomaly_core.scoring import score_maps
from tests.anomaly_core.files import colours

SIZE = (224, 224)


def flat(value: float) -> np.ndarray:
    return np.full((28, 28), value, dtype=np.float32)


@pytest.mark.parametrize("threshold", [1e-4, 0.05, 0.107, 1.0, 37.5])
def test_a_colour_means_the_same_at_every_threshold(threshold: float) -> None:
    shown = {
        share: heatmap(relative_map(flat(threshold * share), threshold, SIZE))
        for share in (0.25, 0.5, 1.0, 1.7, 2.0, 9.0)
    }
    reference = {share: heatmap(relative_map(flat(share), 1.0, SIZE)) for share in shown}
    for share, picture in shown.items():
        assert picture.shape == (224, 224, 3) and picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, reference[share])
        assert (picture == picture[0, 0]).all()
    assert tuple(shown[1.0][0, 0]) == (236, 104, 32), "orange"
    assert tuple(shown[2.0][0, 0]) == tuple(shown[9.0][0, 0]) == (255, 255, 220), "white from twice the threshold"
    assert shown[0.5].max() <= 90, "dark"


def test_colours_grow_lighter_with_the_error() -> None:
    shares = np.linspace(0, 2.5, 300, dtype=np.float32)[None]
    grey = heatmap(shares).astype(int).sum(axis=2)[0]
    assert (np.diff(grey) >= -2).all() and grey[-1] > grey[0] + 600


def test_half_the_threshold_and_below_leaves_the_picture_untouched() -> None:
    picture = colours(224, 224)
    maps = np.random.default_rng(0).uniform(0, 0.4999, (28, 28)).astype(np.float32)
    result = overlay(relative_map(maps * 0.107, 0.107, SIZE), picture)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, picture)
    np.testing.assert_array_equal(overlay(relative_map(flat(0.5), 1.0, SIZE), picture), picture)


def test_only_what_lies_above_is_coloured() -> None:
    picture = colours(224, 224)
    maps = flat(0.0)
    maps[10, 20] = 3.0
    result = overlay(relative_map(maps, 1.0, SIZE), picture)
    changed = (result != picture).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 70 < rows.min() < 84 < rows.max() < 98 and 150 < columns.min() < 164 < columns.max() < 178
    np.testing.assert_array_equal(result[~changed], picture[~changed])


def test_the_threshold_is_mixed_by_its_opacity() -> None:
    picture = np.full((224, 224, 3), 100, dtype=np.uint8)
    result = overlay(relative_map(flat(0.3), 0.3, SIZE), picture)
    np.testing.assert_allclose(result[0, 0], 100 * 0.55 + np.array([236, 104, 32]) * 0.45, atol=0.51)
    white = overlay(relative_map(flat(9), 1.0, SIZE), picture)
    np.testing.assert_allclose(white[0, 0], 100 * 0.25 + np.array([255, 255, 220]) * 0.75, atol=0.51)


# --------------------------------------------------------------------------------------- the line at the threshold


def blended(relative: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """An overlay without a line: the pixels of each side by themselves, where nothing crosses."""
    result = np.empty_like(picture)
    for side in (relative >= 1, relative < 1):
        if side.any():
            result[side] = overlay(relative[side][None], picture[side][None])[0]
    return result


def test_the_line_is_exactly_where_the_error_crosses_the_threshold() -> None:
    relative = np.array(
        [
            [0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
            [0.2, 0.2, 1.2, 1.2, 0.2, 0.2],
            [0.2, 1.0, 1.9, 1.9, 1.2, 0.2],
            [0.2, 0.2, 1.2, 1.9, 1.2, 0.2],
            [0.2, 0.2, 0.2, 1.2, 1.2, 0.2],
            [1.4, 0.99, 0.2, 0.2, 0.2, 0.2],
        ],
        np.float32,
    )
    drawn = ["..bb..", ".bwwb.", "bw  wb", ".bw wb", "b.bwwb", "wb.bb."]  # black, white; what is not on the line
    picture = colours(6, 6)
    expected = blended(relative, picture)
    for y, row in enumerate(drawn):
        for x, kind in enumerate(row):
            if kind in "bw":
                expected[y, x] = 255 * (kind == "w")
    np.testing.assert_array_equal(overlay(relative, picture), expected)


@pytest.mark.parametrize("brightness", [0, 100, 255])
def test_the_line_of_a_map_is_its_every_crossing_and_shows_on_every_picture(brightness: int) -> None:
    maps = np.random.default_rng(3).gamma(2.0, 0.3, (28, 28)).astype(np.float32)
    relative, picture = relative_map(maps, 1.0, SIZE), np.full((224, 224, 3), brightness, np.uint8)
    result = overlay(relative, picture)
    above = relative >= 1
    assert 0.02 < above.mean() < 0.5
    expected = blended(relative, picture)
    around = np.pad(above, 1, mode="edge")
    beside = [around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]]
    line = np.any([other != above for other in beside], axis=0)
    assert line.sum() > 1000
    expected[line & above], expected[line & ~above] = 255, 0
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("level", [0.3, 0.999, 1.0, 3.0])
def test_without_a_crossing_there_is_no_line(level: float) -> None:
    relative, picture = np.full((9, 9), level, np.float32), colours(9, 9)
    np.testing.assert_array_equal(overlay(relative, picture), blended(relative, picture))


@pytest.mark.parametrize(("side", "width"), [(224, 1), (671, 1), (900, 2), (1800, 4)])
def test_the_line_is_about_as_wide_every_way_and_wider_in_larger_pictures(side: int, width: int) -> None:
    y, x = np.mgrid[:side, :side]
    relative = (2 - np.hypot(y - side / 2, x - side / 3) / (side / 4)).astype(np.float32)
    result = overlay(relative, np.full((side, side, 3), 90, np.uint8))
    above = relative >= 1
    for inside, colour in ((above, (255, 255, 255)), (~above, (0, 0, 0))):
        away = distance_transform_edt(inside)[inside]  # from the other side, from 1
        line = (result[inside] == colour).all(axis=1)
        assert line[away <= 0.9 * width].all() and not line[away > 1.1 * width + 0.5].any()
    straight = np.zeros((side, side), np.float32)
    straight[:, side // 2 :] = 1.0
    row = overlay(straight, np.full((side, side, 3), 90, np.uint8))[7, :, 0]
    at = side // 2
    assert (row[at - width : at] == 0).all() and (row[at : at + width] == 255).all()
    assert row[at - width - 1] == 90 and row[at + width] not in (0, 255)


def test_a_large_picture_is_as_a_small_one_in_every_band(monkeypatch: pytest.MonkeyPatch) -> None:
    relative = np.random.default_rng(5).gamma(2.0, 0.4, (50, 30)).astype(np.float32)
    picture = colours(50, 30)[:, ::-1]  # a view with negative strides
    whole = heatmap(relative), overlay(relative, picture)
    monkeypatch.setattr(module, "_AT_ONCE", 200)  # of 50 rows, six at once
    np.testing.assert_array_equal(heatmap(relative), whole[0])
    np.testing.assert_array_equal(overlay(relative, picture), whole[1])


def test_the_relative_map_is_the_map_that_is_scored() -> None:
    maps = np.random.default_rng(1).random((28, 28)).astype(np.float32)
    relative = relative_map(maps, 0.25, SIZE)
    score, _, _ = score_maps(torch.from_numpy(maps)[None], "top10_mean_224")
    assert relative.dtype == np.float32 and relative.shape == (224, 224)
    assert np.sort(relative.ravel())[-10:].mean() == pytest.approx(score[0] / 0.25, rel=1e-6)


def test_size_is_width_then_height() -> None:
    maps = flat(0.0)
    maps[0, 27] = 1.0  # top right
    relative = relative_map(maps, 1.0, (100, 40))
    assert relative.shape == (40, 100)
    row, column = np.unravel_index(relative.argmax(), relative.shape)
    assert row < 3 and column > 95
    np.testing.assert_allclose(relative_map(flat(0.7), 1.0, (333, 77)), 0.7, rtol=1e-5)


def test_maps_in_half_precision_and_as_lists() -> None:
    maps = np.random.default_rng(2).random((28, 28)).astype(np.float16)
    np.testing.assert_array_equal(
        relative_map(maps, 0.5, SIZE), relative_map(maps.astype(np.float32).tolist(), 0.5, SIZE)
    )


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan, math.inf])
def test_a_threshold_must_be_a_positive_number(threshold: float) -> None:
    with pytest.raises(ValueError, match="positive threshold"):
        relative_map(flat(1.0), threshold, SIZE)


def test_png_round_trip() -> None:
    picture = colours(33, 51)
    with Image.open(io.BytesIO(png(picture))) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), picture)
    turned = np.ascontiguousarray(picture[:, ::-1])[:, ::-1]  # a view with negative strides
    assert png(turned) == png(picture)
