"""The pointing game of an evaluation: made-up error maps against masks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_core.metrics import rate
from jobs.evaluation import images as test_images
from jobs.evaluation.figures import Evaluation, Pointing, evaluate
from jobs.evaluation.judge import Judged
from jobs.evaluation.tables import markdown, metrics_table, tables

SQUARE = (slice(80, 120), slice(160, 200))  # rows, columns; at 224 x 224


def judged(category: str, defect: str, cell: tuple[int, int], mask: Path | None) -> Judged:
    """An image whose error is highest in a cell (row, column) of the map."""
    error_map = np.full((28, 28), 0.1, np.float32)
    error_map[cell] = 1.0
    image = test_images.TestImage(
        category, defect, f"{category}/{defect}/{cell}", "", None if mask is None else str(mask)
    )
    return Judged(image, category, 1.0, None, None, 0.9, error_map, 0.9, 0.5, "anomalous", None)


@pytest.fixture
def found(tmp_path: Path) -> Evaluation:
    """Of cells of 8 x 8 pixels, whose centre is 3 pixels from their first one: rows 10 to 14, columns 20 to 24 are in
    the square. Of a cap, pill and tile one image each is good; the masks of pills are empty or not there."""
    area = np.zeros((224, 224), np.uint8)
    empty, square = tmp_path / "empty.png", tmp_path / "square.png"
    Image.fromarray(area).save(empty)
    area[SQUARE] = 255
    Image.fromarray(area).save(square)
    cells = [(12, 22), (10, 20), (10, 19), (14, 18), (9, 25), (16, 26), (0, 0)]
    images = [judged("cap", "dent", cell, square) for cell in cells]
    images += [judged(category, "good", (12, 22), None) for category in ("cap", "pill", "tile")]
    images += [judged("pill", "dent", (12, 22), None), judged("pill", "dent", (12, 22), empty)]
    images += [judged("tile", "dent", (12, 22), square), judged("tile", "dent", (3, 3), square)]
    return evaluate(images, {"cap": 0.5, "pill": 0.5, "tile": 0.5})


def test_peaks_in_the_mask_and_near_it(found: Evaluation) -> None:
    # Of a lone cell, one of the four pixels around its centre is the first highest: 8 r + 3. Beside the square, of
    # rows 80 to 119 and columns 160 to 199: (83, 155) is 5 pixels away, (115, 147) 13, (75, 203) hypot(5, 4), and
    # (131, 211) hypot(12, 12) = 17.
    assert found.categories["cap"].pointing == Pointing(rate(2, 7), rate(5, 7))
    assert found.categories["tile"].pointing == Pointing(rate(1, 2), rate(1, 2))
    assert found.summary.pointing == Pointing(rate(3, 9), rate(6, 9))


def test_without_a_defect_in_a_mask_there_is_nothing_to_point_at(found: Evaluation) -> None:
    assert found.categories["pill"].pointing == Pointing(rate(0, 0), rate(0, 0))
    pills = evaluate([judged("pill", "dent", (1, 1), None)], {"pill": 0.5})
    assert pills.summary.pointing.hits.rate is None
    assert "Pointing game" not in [title for title, _, _ in tables(pills)]


def test_only_defective_images_are_enough(tmp_path: Path) -> None:
    Image.new("L", (224, 224), 255).save(tmp_path / "all.png")
    found = evaluate([judged("cap", "dent", (1, 1), tmp_path / "all.png")], {"cap": 0.5}).categories["cap"]
    assert (found.pixel_auroc, found.pointing.hits) == (None, rate(1, 1))


def test_every_file_says_so(found: Evaluation) -> None:
    content = json.loads(json.dumps(asdict(found)))
    assert content["categories"]["cap"]["pointing"]["near"] == asdict(rate(5, 7))
    assert content["summary"]["pointing"]["hits"]["count"] == 3
    rows = {
        (row["category"], row["metric"]): (row["count"], row["of"], row["value"])
        for row in metrics_table(found).to_pylist()
        if row["metric"].startswith("pointing_game")
    }
    assert len(rows) == 8
    assert rows["cap", "pointing_game"] == (2, 7, pytest.approx(2 / 7))
    assert rows["cap", "pointing_game_15px"] == (5, 7, pytest.approx(5 / 7))
    assert rows["pill", "pointing_game"] == (0, 0, None)
    assert rows[None, "pointing_game"] == (3, 9, pytest.approx(1 / 3))
    text = markdown(found, {})
    assert "## Pointing game\n\n| category | images | peak in the defect | at most 15 pixels from it |" in text
    assert f"| all | 9 | {rate(3, 9)} | {rate(6, 9)} |" in text
    assert "| pill | 0 | - | - |" in text


def test_every_table_has_a_cell_for_every_heading(found: Evaluation) -> None:
    every = list(tables(found))
    assert [title for title, _, _ in every][:2] == ["Scores", "Pointing game"]
    for title, headings, cells in every:
        assert {len(row) for row in cells} == {len(headings)}, title
