"""A comparison as one HTML page, with the pictures of the images that changed most."""

from __future__ import annotations

from dataclasses import dataclass

import jobs.page.render as pages
from jobs.compare.images import Image
from jobs.compare.plots import overlaid, scatter
from jobs.compare.run import Comparison
from jobs.compare.side import Side
from jobs.compare.tables import about, most_changed, sentences, tables
from jobs.storage import is_file, read_bytes
from jobs.uris import join

_PNG = b"\x89PNG\r\n\x1a\n"


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
    a, b = (_overlay(side, image, path) for side, path in ((found.a, image.overlay_a), (found.b, image.overlay_b)))
    return Shown(most_changed(image), a, b)


def _overlay(side: Side, image: Image, path: str | None) -> str | None:
    """Of the run's own pictures only, wherever the run is now: a table must not make a page show other files."""
    if path is None or side.earlier:
        return None
    *_, category, name = ["", *path.split("/")]
    uri = join(side.folder.heatmaps, category, name)
    if category in ("", ".", "..") or name != f"{image.image_id}_overlay.png" or not is_file(uri):
        return None
    data = read_bytes(uri)
    return pages.picture(data) if data.startswith(_PNG) else None
