"""What the pictures of a run are called, and what is not read in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_core.heatmap import png
from jobs.audit.pictures import LARGEST, NoPicture, picture_uri, read_picture
from tests.bundles import random_pixels

IMAGE_ID = "0123456789abcdef" * 2
PICTURE = png(random_pixels(1, seed=1)[0])


def test_names_are_of_category_and_image_id() -> None:
    assert picture_uri("s3://b/heatmaps/x", "metal nut", IMAGE_ID, "heatmap") == (
        f"s3://b/heatmaps/x/metal nut/{IMAGE_ID}.png"
    )
    assert picture_uri("/h", "pill", IMAGE_ID, "overlay") == f"/h/pill/{IMAGE_ID}_overlay.png"


@pytest.mark.parametrize(
    ("category", "image_id"),
    [("..", IMAGE_ID), (".", IMAGE_ID), ("", IMAGE_ID), ("a/b", IMAGE_ID), ("pill", "../x"), ("pill", f"{IMAGE_ID}\n")],
)
def test_names_that_lead_elsewhere_are_none(category: str, image_id: str) -> None:
    with pytest.raises(NoPicture, match="names no picture of this run"):
        picture_uri("/h", category, image_id, "overlay")


def test_only_pictures_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    for data in (b"root:x:0:0", b"", PICTURE + bytes(LARGEST)):
        file.write_bytes(data)
        with pytest.raises(NoPicture, match="no picture of the audit"):
            read_picture(str(file))
    file.write_bytes(PICTURE)
    assert read_picture(str(file)) == PICTURE
    for gone in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(NoPicture, match="is gone"):
            read_picture(str(gone))
