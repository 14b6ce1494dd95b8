"""A comparison as one HTML page, with the pictures of the images that changed most."""

from __future__ import annotations

from dataclasses import dataclass

import jobs.page.render as pages
from jobs.audit.pictures import NoPicture, picture_uri, read_picture
from jobs.compare.images import Image
from jobs.compare.plots import overlaid, scatter
from jobs.compare.run import Comparison
from jobs.compare.side import Side
from jobs.compare.tables import about, most_changed, sentences, tables


@dataclass(frozen=True)
class Shown:
    """One image that changed: its cells in the table, and both overlays as addresses of images, None without one."""

    cells: list[str]
    a: str | None
    b: str | None


def page(found: Comparison) -> str:
    """The HTML. Raises StorageAccessError where pictures cannot be read; one that is gone is left out."""
    return pages.page(
        "jobs.compare",
        {
            "about": about(found),
            "sentences": list(sentences(found)),
            "tables": list(tables(found)),
            "question": found.question,
            "scatter": pages.figure(scatter(found.points)) if found.points else None,
            "histograms": pages.figure(overlaid(found.histograms)) if found.histograms else None,
            "shown": [_shown(found, image) for image in found.images.most] if found.images is not None else [],
        },
    )


def _shown(found: Comparison, image: Image) -> Shown:
    a = _overlay(found.a, image.image_id, image.category_a, image.overlay_a)
    b = _overlay(found.b, image.image_id, image.category_b, image.overlay_b)
    return Shown(most_changed(image), a, b)


def _overlay(side: Side, image_id: str, category: str | None, path: str | None) -> str | None:
    if path is None or side.earlier:
        return None
    try:
        return pages.picture(read_picture(picture_uri(side.folder.heatmaps, category or "", image_id, "overlay")))
    except NoPicture:
        return None
