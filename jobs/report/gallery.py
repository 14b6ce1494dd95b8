"""The worst images as thumbnails within the page, so that it needs no other file, and links to their pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from PIL import Image

from jobs.audit.record import RunFolder
from jobs.report.details import Shot
from jobs.storage import read_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import is_local, join
from manifests.secrets import redacted

SIDE, QUALITY, READERS = 224, 62, 16
MOST_BYTES = 1_500_000  # of all thumbnails; the page's charts are three times that


@dataclass(frozen=True)
class Tile:
    """A shot in the gallery. source: its thumbnail, as a data URI; None with a reason in ``without``.

    overlay, heatmap: where they are, from the page's folder. uris: the same in full, where a browser cannot follow a
    page to them; none on this machine.
    """

    shot: Shot
    source: str | None
    without: str
    overlay: str
    heatmap: str | None
    uris: tuple[str, ...]


def tiles(folder: RunFolder, shots: Sequence[Shot]) -> list[Tile]:
    """The shots with their thumbnails. The worst come first, and get what bytes there are."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda shot: _thumbnail(picture(folder, shot, "_overlay.png")), shots))
    spent, made = 0, list[Tile]()
    for shot, (data, why) in zip(shots, found, strict=True):
        if data is not None and spent + len(data) > MOST_BYTES:
            data, why = None, "left out to keep the page small"
        spent += len(data or b"")
        source = None if data is None else f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        files = [picture(folder, shot, end) for end in ("_overlay.png", *([".png"] if shot.heatmap else []))]
        links = [f"../../../{quote(uri[len(folder.output) :].lstrip('/'), safe='/=')}" for uri in files]
        uris = () if is_local(folder.output) else tuple(files)
        made.append(Tile(shot, source, why, links[0], links[1] if shot.heatmap else None, uris))
    return made


def picture(folder: RunFolder, shot: Shot, ending: str) -> str:
    """The URI of a picture of a run, also of one that was copied: the table has the address that it had at first."""
    return join(folder.heatmaps, shot.category, f"{shot.image_id}{ending}")


def _thumbnail(uri: str) -> tuple[bytes | None, str]:
    """A WebP of the picture, or why there is none."""
    try:
        with Image.open(io.BytesIO(read_bytes(uri)), formats=["PNG"]) as found:
            small = found.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, format="WEBP", quality=QUALITY, method=4)
        return buffer.getvalue(), ""
    except FileNotFoundError:
        return None, "the picture is not there any more"
    except (OSError, ValueError, SyntaxError, StorageAccessError, Image.DecompressionBombError) as error:
        return None, redacted(f"the picture cannot be read: {error}")[:200]
