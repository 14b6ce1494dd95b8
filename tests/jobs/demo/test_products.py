"""Drawn products: every category and defect, what a defect may change, and that categories look apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jobs.demo.products import CATEGORIES, DEFECTS, LARGEST, SMALLEST, draw

EVERY_DEFECT = [(category, defect) for category in CATEGORIES for defect in DEFECTS[category]]


def test_names() -> None:
    assert list(CATEGORIES) == sorted(set(CATEGORIES))
    assert len(CATEGORIES) >= 6
    assert set(DEFECTS) == set(CATEGORIES)
    assert all(len(names) >= 3 for names in DEFECTS.values())


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_part(category: str) -> None:
    drawing = draw(category, np.random.default_rng(5))
    assert drawing.image.shape == (320, 320, 3)
    assert drawing.image.dtype == np.uint8
    assert drawing.mask.shape == (320, 320)
    assert drawing.mask.dtype == np.bool_
    assert not drawing.mask.any()
    # Exposed as a photograph should be: neither flat nor burnt out.
    assert drawing.image.std() > 8
    assert (drawing.image == 255).mean() < 0.05


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
def test_defect_changes_the_part_only_where_the_mask_says(category: str, defect: str) -> None:
    for seed in range(4):
        good = draw(category, np.random.default_rng(seed))
        bad = draw(category, np.random.default_rng(seed), defect)
        assert SMALLEST <= bad.mask.mean() <= LARGEST
        differs = (good.image != bad.image).any(axis=2)
        near = ndimage.binary_dilation(bad.mask, iterations=3)
        assert not (differs & ~near).any()
        change = np.abs(good.image.astype(int) - bad.image.astype(int)).max(axis=2)
        assert change[bad.mask].mean() > 8, "a defect nobody could see"


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
def test_defects_vary(category: str, defect: str) -> None:
    masks = [draw(category, np.random.default_rng(seed), defect).mask for seed in range(3)]
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_seed_same_picture(category: str) -> None:
    defect = DEFECTS[category][0]
    first, second = (draw(category, np.random.default_rng(9), defect) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.mask, second.mask)
    other = draw(category, np.random.default_rng(10), defect)
    assert not np.array_equal(first.image, other.image)


def test_one_generator_gives_one_part_after_another() -> None:
    rng = np.random.default_rng(1)
    assert not np.array_equal(draw("gear", rng).image, draw("gear", rng).image)


@pytest.mark.parametrize("size", [96, 250, 512])
def test_other_sizes(size: int) -> None:
    for category in CATEGORIES:
        drawing = draw(category, np.random.default_rng(2), DEFECTS[category][0], size=size)
        assert drawing.image.shape == (size, size, 3)
        assert drawing.mask.any()


def test_size_changes_the_resolution_and_not_the_framing() -> None:
    for category in CATEGORIES:
        small, large = (
            Image.fromarray(draw(category, np.random.default_rng(3), size=size).image)
            .convert("L")
            .resize((20, 20), Image.Resampling.BOX)
            for size in (160, 320)
        )
        gap = np.abs(np.asarray(small, dtype=int) - np.asarray(large, dtype=int))
        assert np.median(gap) < 8, category


def test_categories_look_apart() -> None:
    def thumbnail(category: str, seed: int, defect: str | None) -> np.ndarray:
        image = Image.fromarray(draw(category, np.random.default_rng(seed), defect).image)
        return np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=float).ravel()

    means = np.stack([np.mean([thumbnail(c, s, None) for s in range(3)], axis=0) for c in CATEGORIES])
    for k, category in enumerate(CATEGORIES):
        for seed, defect in enumerate((None, None, *DEFECTS[category]), start=50):
            distance = np.linalg.norm(means - thumbnail(category, seed, defect), axis=1)
            nearest, second = np.sort(distance)[:2]
            assert int(distance.argmin()) == k
            assert nearest < 0.5 * second


def test_unknown_names() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown category 'spoon'"):
        draw("spoon", rng)
    with pytest.raises(ValueError, match="unknown defect 'rust' of bottle_cap"):
        draw("bottle_cap", rng, "rust")
