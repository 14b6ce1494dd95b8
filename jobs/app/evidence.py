"""What is to be seen of a row: its image as it was scored, the heatmap and the overlay."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

from PIL import Image

from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from anomaly_core.preprocess import SIZE, ImageError, decode, decode_whole
from jobs.app.rows import Row
from jobs.app.runs import BrowsedRun
from jobs.audit.exits import AuditError
from jobs.audit.pictures import KINDS, Kind, NoPicture, picture_uri, read_picture
from jobs.show.maps import error_map
from jobs.show.pictures import ImageUnavailable, scored_bytes
from jobs.show.rows import PublishedRow
from jobs.storage_errors import StorageAccessError
from manifests.schema import printable

LONGEST_SIDE = 1024


@dataclass(frozen=True)
class Seen:
    """A picture as the bytes of a file, or why there is none. kind: its media type."""

    data: bytes = b""
    problem: str = ""
    kind: str = "image/png"


@dataclass(frozen=True)
class Evidence:
    """The image, heatmap and overlay of a row. ratio: width / height of the image."""

    original: Seen
    heatmap: Seen
    overlay: Seen
    ratio: float


def evidence(run: BrowsedRun, row: Row) -> Evidence:
    """What is to be seen of a row. heatmap and overlay are those that the run wrote, else made again from the error map
    in its shard, as the audit makes them. A picture that cannot be had says why."""
    published = PublishedRow(**{field.name: row[field.name] for field in fields(PublishedRow)})
    original, data = _original(run, published)
    heat, over = (_written(run, row, kind) for kind in KINDS)
    if not (heat.data and over.data):
        again = _made_again(run, published, data)
        heat, over = (old if old.data else new for old, new in zip((heat, over), again, strict=True))
    ratio = row["width"] / row["height"] if row["width"] and row["height"] else 1.0
    return Evidence(original, heat, over, ratio)


def _original(run: BrowsedRun, row: PublishedRow) -> tuple[Seen, bytes | None]:
    """The image for people, and its file if that is the one that was scored."""
    try:
        data = scored_bytes(row, run.record)
        pixels = decode_whole(data, run.limits, run.preprocessing.exif_orientation)
    except (ImageUnavailable, StorageAccessError, AuditError, ImageError) as error:
        said = f"the file cannot be decoded ({error.code}: {error})" if isinstance(error, ImageError) else str(error)
        return Seen(problem=printable(said)), None
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return Seen(buffer.getvalue(), kind="image/jpeg"), data


def _written(run: BrowsedRun, row: Row, kind: Kind) -> Seen:
    """A picture that the run wrote."""
    if row[f"{kind}_path"] is None:
        return Seen(problem="the run wrote none")
    try:
        return Seen(read_picture(picture_uri(run.folder.heatmaps, row["category"] or "", row["image_id"], kind)))
    except (NoPicture, StorageAccessError) as error:
        return Seen(problem=printable(str(error)))


def _made_again(run: BrowsedRun, row: PublishedRow, data: bytes | None) -> tuple[Seen, Seen]:
    """Heatmap and overlay as the audit would write them. data: the image's file, without which there is no overlay."""
    if row.score is None or row.threshold is None:
        none = Seen(problem="the image has no score")
        return none, none
    try:
        relative = relative_map(error_map(run.folder, run.record, row), row.threshold, (SIZE, SIZE))
    except (AuditError, StorageAccessError) as error:
        none = Seen(problem=printable(str(error)))
        return none, none
    heat = Seen(png(heatmap(relative)))
    if data is None:
        return heat, Seen(problem="there is no overlay without the image")
    try:
        pixels = decode(data, run.limits, run.preprocessing).pixels
    except (
        ImageError
    ) as error:  # decoded at a fraction of its size, a JPEG may show damage that it has not shown before
        return heat, Seen(problem=printable(f"the file cannot be decoded ({error.code}: {error})"))
    return heat, Seen(png(overlay(relative, pixels)))
