"""What is to be seen of a row: its image as it was scored, the heatmap and the overlay."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from anomaly_core.preprocess import SIZE, ImageError, decode, view
from jobs.app.runs import BrowsedRun
from jobs.audit.committed import retries
from jobs.audit.fetch import FetchError, fetch
from jobs.audit.results import DAMAGE
from jobs.audit.write import shard_name
from jobs.storage import reading
from jobs.storage_errors import StorageAccessError
from jobs.uris import join
from manifests.schema import printable

LONGEST_SIDE = 1024
LARGEST_PICTURE = 4 * 2**20  # bytes; the audit's have some 50,000
_PNG = b"\x89PNG\r\n\x1a\n"


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


def evidence(run: BrowsedRun, row: dict[str, Any]) -> Evidence:
    """What is to be seen of a row. heatmap and overlay are those that the run wrote, else made again from the error map
    in its shard, as the audit makes them. A picture that cannot be had says why."""
    original, data = _original(run, row)
    heat, over = (_written(run, row[column]) for column in ("heatmap_path", "overlay_path"))
    if not (heat.data and over.data):
        again = _made_again(run, row, data)
        heat, over = (old if old.data else new for old, new in zip((heat, over), again, strict=True))
    ratio = row["width"] / row["height"] if row["width"] and row["height"] else 1.0
    return Evidence(original, heat, over, ratio)


def _original(run: BrowsedRun, row: dict[str, Any]) -> tuple[Seen, bytes | None]:
    """The image for people, and its file if that is the one that was scored."""
    if not row["uri"]:
        return Seen(problem="The manifest names no image."), None
    try:
        data = fetch(row["uri"], run.allowed, run.limits.max_bytes, row["version_id"]).data
    except (FetchError, StorageAccessError) as error:
        said = f"{error.code}: {error.message}" if isinstance(error, FetchError) else str(error)
        gone = isinstance(error, FetchError) and error.code == "missing_object"
        return Seen(problem=printable(("The image is gone. " if gone else "The image cannot be had: ") + said)), None
    if row["sha256"] is not None and hashlib.sha256(data).hexdigest() != row["sha256"]:
        return Seen(problem="The image was overwritten since it was scored."), None
    try:
        pixels = view(data, LONGEST_SIDE, run.limits, run.preprocessing)
    except ImageError as error:
        return Seen(problem=printable(f"The file cannot be shown: {error.code}: {error.message}")), None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=95, subsampling=0)
    return Seen(buffer.getvalue(), kind="image/jpeg"), data


def _written(run: BrowsedRun, path: str | None) -> Seen:
    """A picture that the run wrote, from the place of its heatmaps, wherever the output lies by now."""
    if path is None:
        return Seen(problem="The run wrote none.")
    tail = f"/heatmaps/run_date={run.folder.run_date}/{run.folder.name}/"
    name = path.rpartition(tail)[2]
    if tail not in path or ".." in name.split("/"):
        return Seen(problem=printable(f"The row names no picture of this run: {path}"))
    try:
        with reading(join(run.folder.heatmaps, name)) as file:
            data = file.read(LARGEST_PICTURE + 1)
    except (FileNotFoundError, StorageAccessError) as error:
        gone = isinstance(error, FileNotFoundError)
        return Seen(problem="The picture is gone." if gone else printable(str(error)))
    if not data.startswith(_PNG) or len(data) > LARGEST_PICTURE:
        return Seen(problem="The file is no picture of the audit.")
    return Seen(data)


def _made_again(run: BrowsedRun, row: dict[str, Any], data: bytes | None) -> tuple[Seen, Seen]:
    """Heatmap and overlay as the audit would write them. data: the image's file, without which there is no overlay."""
    if row["score"] is None:
        none = Seen(problem="The image has no score.")
        return none, none
    try:
        found = error_map(run, row["image_id"], row["shard"])
    except (StorageAccessError, *DAMAGE) as error:
        none = Seen(problem=printable(f"The shard with the error map cannot be read: {error}"))
        return none, none
    if found is None:
        none = Seen(problem="Neither picture nor error map is there any more.")
        return none, none
    relative = relative_map(found, row["threshold"], (SIZE, SIZE))
    heat = Seen(png(heatmap(relative)))
    if data is None:
        return heat, Seen(problem="There is no overlay without the image.")
    try:
        return heat, Seen(png(overlay(relative, decode(data, run.limits, run.preprocessing).pixels)))
    except ImageError as error:
        return heat, Seen(problem=printable(f"The file cannot be decoded: {error.code}: {error.message}"))


def error_map(run: BrowsedRun, image_id: str, shard: int) -> npt.NDArray[np.float32] | None:
    """The stored error map (28, 28) of a scored image, from the run's shard or from the retry that scored it; None if
    neither is there. Raises what Arrow raises of a damaged file, StorageAccessError."""
    files = [join(run.folder.shards, shard_name(shard))]
    for folder, frozen in reversed(retries(run.folder, run.record)):
        files += [join(folder.shards, shard_name(one.index)) for one in frozen.shards]
    for uri in files:
        try:
            with reading(uri) as file:
                wanted = (pc.field("image_id") == image_id) & (pc.field("status") == "scored")
                found = pq.read_table(file, columns=["error_map"], filters=wanted)["error_map"]
        except FileNotFoundError:
            continue
        if len(found) and found[0].is_valid:
            return np.asarray(found[0].values, dtype=np.float32).reshape(28, 28)
    return None
