"""The legend: the picture as it was, and a bar whose colours, ticks and mark are at the right places."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_core.heatmap import heatmap
from anomaly_core.legend import BACKGROUND, INK, with_legend
from tests.anomaly_core.files import colours


def bar_of(result: np.ndarray, height: int) -> tuple[int, slice]:
    """The first row of the colour bar, and its columns."""
    first = heatmap(np.zeros((1, 1), np.float32))[0, 0]
    rows, columns = np.nonzero((result[height:] == first).all(axis=2))
    row = height + int(rows.min())
    return row, slice(int(columns.min()), result.shape[1] - int(columns.min()))


def columns_of_ink(row: np.ndarray) -> list[int]:
    return np.flatnonzero((row == INK).all(axis=1)).tolist()


@pytest.mark.parametrize(("height", "width"), [(224, 224), (300, 900), (1300, 1000), (10, 3)])
def test_the_picture_stays_and_the_bar_runs_from_0_to_twice_the_threshold(height: int, width: int) -> None:
    picture = colours(height, width)
    result = with_legend(picture, 0.107, 0.15)
    assert result.dtype == np.uint8 and result.shape[1] >= width and height < result.shape[0]
    np.testing.assert_array_equal(result[:height, :width], picture)
    assert (result[:height, width:] == BACKGROUND).all()
    row, columns = bar_of(result, height)
    length = columns.stop - columns.start
    assert length > 0.9 * result.shape[1]
    np.testing.assert_array_equal(result[row, columns], heatmap(np.linspace(0, 2, length, dtype=np.float32)[None])[0])
    below = row + int((result[row:, columns.start] != result[row, columns.start]).any(axis=1).argmax())
    ticks = columns_of_ink(result[below])
    for relative in (0, 0.5, 1, 2):
        assert columns.start + round(relative / 2 * (length - 1)) in ticks


@pytest.mark.parametrize("margin", [0.0, 0.37, 1.0, 1.999, 2.0, 11.0])
def test_the_score_is_marked_where_it_is(margin: float) -> None:
    result = with_legend(colours(400, 600), 0.2, 0.2 * margin)
    row, columns = bar_of(result, 400)
    (tip,) = columns_of_ink(result[row - 1])
    assert tip == columns.start + round(min(margin / 2, 1) * (columns.stop - columns.start - 1))
    said = result[400 : row - 8] != BACKGROUND  # the figure is written above the mark, within the bar's width
    at = np.flatnonzero(said.any(axis=(0, 2)))
    assert len(at) and columns.start <= at.min() and at.max() <= columns.stop


def test_figures_are_those_of_the_threshold_and_the_score() -> None:
    one, other = with_legend(colours(), 0.1, 0.13), with_legend(colours(), 0.1, 0.13)
    np.testing.assert_array_equal(one, other)
    assert (one != with_legend(colours(), 0.2, 0.26)).any()
    assert (one != with_legend(colours(), 0.1, 0.1301)).any()


@pytest.mark.parametrize("threshold", [0.006517, 1.2346e-05, 0.5])
@pytest.mark.parametrize("width", [100, 320, 512, 900])
def test_no_figure_runs_into_the_next(width: int, threshold: float) -> None:
    result = with_legend(colours(200, width), threshold, threshold)
    row, _ = bar_of(result, 200)
    text = max(12, width // 50)
    written = (result[row + text + 2 * text // 3 :] != BACKGROUND).any(axis=(0, 2))
    at = np.flatnonzero(written)
    gaps = np.diff(at)
    assert (gaps > 0.6 * text).sum() == 3, "four figures, with more between them than between their words"
