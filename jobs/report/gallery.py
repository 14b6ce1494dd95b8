"""The worst images as thumbnails within the page, so that it needs no other file, and links to their pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from PIL import Image

from jobs.audit.pictures import Kind, NoPicture, picture_uri, read_picture
from jobs.audit.record import RunFolder
from jobs.report.details import Shot
from jobs.storage_errors import StorageAccessError
from jobs.uris import below, is_local
from manifests.secrets import redacted

SIDE, QUALITY, READERS = 224, 62, 16
MOST_BYTES = 1_500_000  # of all thumbnails; the page's charts are three times that


@dataclass(frozen=True)
class Tile:
    """A shot in the gallery. source: its thumbnail, as a data URI; None with a reason in ``without``.

    links: by kind of picture, where they are from the page's folder; uris: the same in full, where a browser cannot
    follow a page to them; none on this machine.
    """

    shot: Shot
    source: str | None
    without: str
    links: dict[Kind, str]
    uris: tuple[str, ...]


def tiles(folder: RunFolder, shots: Sequence[Shot]) -> list[Tile]:
    """The shots with their thumbnails. The worst come first, and get what bytes there are."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda shot: _thumbnail(folder, shot), shots))
    spent, made = 0, list[Tile]()
    for shot, (data, why) in zip(shots, found, strict=True):
        if data is not None and spent + len(data) > MOST_BYTES:
            data, why = None, "left out to keep the page small"
        spent += len(data or b"")
        source = None if data is None else f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        files = _files(folder, shot)
        links = {kind: f"../../../{quote(below(folder.output, uri), safe='/=')}" for kind, uri in files.items()}
        made.append(Tile(shot, source, why, links, () if is_local(folder.output) else tuple(files.values())))
    return made


def _files(folder: RunFolder, shot: Shot) -> dict[Kind, str]:
    """URIs of the pictures of a shot."""
    kinds: tuple[Kind, ...] = ("overlay", "heatmap") if shot.heatmap else ("overlay",)
    try:
        return {kind: picture_uri(folder.heatmaps, shot.category, shot.image_id, kind) for kind in kinds}
    except NoPicture:
        return {}


def _thumbnail(folder: RunFolder, shot: Shot) -> tuple[bytes | None, str]:
    """A WebP of the overlay, or why there is none."""
    try:
        data = read_picture(picture_uri(folder.heatmaps, shot.category, shot.image_id, "overlay"))
        with Image.open(io.BytesIO(data), formats=["PNG"]) as found:
            small = found.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, format="WEBP", quality=QUALITY, method=4)
        return buffer.getvalue(), ""
    except NoPicture as error:
        return None, str(error)
    except (OSError, ValueError, SyntaxError, StorageAccessError, Image.DecompressionBombError) as error:
        return None, redacted(f"the picture cannot be read: {error}")[:200]
