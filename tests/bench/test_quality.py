"""What the studies of detection quality stand on: defects that are drawn, and shares that are rejected."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly_core.calibration import ThresholdRule
from tests.bench.defects import KINDS, draw
from tests.bench.promise import rejected


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_drawn_on_the_part_and_its_mask_is_where_the_picture_changed(kind: str) -> None:
    generator = np.random.default_rng(3)
    pixels = np.full((224, 224, 3), 20, dtype=np.uint8)
    pixels[60:160, 40:190] = generator.integers(60, 220, (100, 150, 3))
    before = pixels.copy()
    found, mask = draw(pixels, kind, np.random.default_rng(5))
    again, _ = draw(pixels, kind, np.random.default_rng(5))
    assert np.array_equal(pixels, before) and np.array_equal(found, again)
    change = np.abs(found.astype(int) - pixels).max(axis=2)
    assert np.array_equal(mask, change > 12)
    assert 12 <= mask.sum() < 0.1 * mask.size
    assert mask[60:160, 40:190].sum() >= 0.5 * mask.sum()


def test_an_empty_picture_can_have_no_defect() -> None:
    with pytest.raises(ValueError, match="no smear could be drawn"):
        draw(np.full((224, 224, 3), 20, dtype=np.uint8), "smear", np.random.default_rng(0))


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_a_conformal_threshold_rejects_what_it_promises_whatever_the_distribution(share: float) -> None:
    scores = np.random.default_rng(0).lognormal(sigma=2, size=400)
    found = rejected(scores.tolist(), ThresholdRule.parse(f"conformal:{share}"))
    assert found.shape == (1000,)
    assert found.mean() == pytest.approx(share, abs=0.002)
    assert rejected(scores.tolist(), ThresholdRule.parse("mean_plus_3sigma")).mean() > 0.012  # a heavy tail
