"""Pictures at their own size: the same ones that the models get at 224 x 224."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anomaly_core.preprocess import ImageError, Limits, Preprocessing, decode, decode_whole
from tests.anomaly_core.files import colours, encode, exif, resized, small_files, stored

FILES = small_files()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_whole_picture_is_turned_as_the_small_one(format: str, orientation: int) -> None:
    upright = colours(60, 90)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    file = encode(stored(upright, orientation), format, exif=exif(orientation), **options)
    whole = decode_whole(file)
    assert whole.shape == (60, 90, 3) and whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - upright).mean() < (8 if format == "JPEG" else 1e-9)
    as_stored = decode_whole(file, exif_orientation=False)
    np.testing.assert_array_equal(stored(whole, orientation), as_stored)


@pytest.mark.parametrize("name", FILES)
def test_a_whole_picture_made_smaller_is_what_the_models_see(name: str) -> None:
    file = FILES[name]
    whole, small = decode_whole(file), decode(file)
    assert whole.shape == (small.height, small.width, 3)
    np.testing.assert_array_equal(resized(whole), small.pixels)


def test_a_whole_picture_is_whole_where_the_models_get_a_reduced_one() -> None:
    file = encode(colours(2000, 1800), "JPEG", quality=60)
    small = decode(file, preprocessing=Preprocessing(jpeg_reduced=True))
    assert decode_whole(file).shape == (small.height, small.width, 3) == (2000, 1800, 3)


def test_a_whole_picture_has_the_same_limits() -> None:
    file = encode(colours(50, 40), "PNG")
    with pytest.raises(ImageError, match="declares 40 x 50") as told:
        decode_whole(file, Limits(max_pixels=1999))
    assert told.value.code == "too_many_pixels"
    with pytest.raises(ImageError, match="larger than the cap"):
        decode_whole(file, Limits(max_bytes=10))
