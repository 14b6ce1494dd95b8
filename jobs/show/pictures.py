"""Image, heatmap and overlay of a row at the image's own size, with a legend, as PNG files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_core.bundle_manifest import BUNDLE_FILE, THRESHOLDS_FILE, BundleManifest
from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from anomaly_core.legend import with_legend
from anomaly_core.preprocess import ImageError, Limits, decode_whole
from jobs.access import AllowList
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.fetch import FetchError, fetch
from jobs.audit.record import RunRecord
from jobs.show.rows import PublishedRow
from jobs.storage import exists, read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join, normal
from manifests.schema import printable


@dataclass(frozen=True)
class Pictures:
    """What was written for a row. files: their URIs. without_image: why there is a heatmap only; None if there are all
    three."""

    files: tuple[str, ...]
    without_image: str | None


class ImageUnavailable(Exception):
    """The image that was scored cannot be had any more; the message says why."""


def write_pictures(
    row: PublishedRow, error_map: npt.NDArray[np.float32], record: RunRecord, upright: Callable[[], bool], target: str
) -> Pictures:
    """Write ``<image_id>-image.png``, ``-heatmap.png`` and ``-overlay.png`` into a folder; what was there is replaced.

    error_map: float32 (28, 28), of a row that has a score. upright: says whether the run turned images as their EXIF
    data says; it is asked only if there is an image. An image that is gone or was overwritten costs image and overlay.
    Raises AuditError, StorageAccessError.
    """
    assert row.width is not None and row.height is not None and row.threshold is not None and row.score is not None
    problem, image = None, None
    try:
        data = scored_bytes(row, record)
        image = _decoded(data, record, upright())
    except ImageUnavailable as error:
        problem = str(error)
    if image is not None and image.shape != (row.height, row.width, 3):
        raise AuditError(
            exits.FAILED,
            f"{row.image_id}: the image is {image.shape[1]} x {image.shape[0]} pixels, but {row.width} x {row.height} "
            "were scored, so the run was made with another preprocessing; name a copy of its bundle with --bundle",
        )
    threshold, score = row.threshold, row.score
    relative = relative_map(error_map, threshold, (row.width, row.height))
    made = {"heatmap": with_legend(heatmap(relative), threshold, score)}
    if image is not None:
        made = {"image": image, **made, "overlay": with_legend(overlay(relative, image), threshold, score)}
    files = {join(target, f"{row.image_id}-{name}.png"): picture for name, picture in made.items()}
    for uri, picture in files.items():
        write_bytes(uri, png(picture))
    return Pictures(tuple(files), problem)


def turned_upright(record: RunRecord, bundle: str | None) -> bool:
    """Whether a run turned images as their EXIF data says: as its record tells, or else its bundle.

    bundle: where that is now, if it was moved; runs of this version do not need it. Raises AuditError if neither tells.
    """
    if record.preprocessing is not None:
        return record.preprocessing.exif_orientation
    uri = normal(bundle or record.bundle)
    try:
        manifest = BundleManifest.from_bytes(read_bytes(join(uri, BUNDLE_FILE)))
    except (FileNotFoundError, NotADirectoryError) as error:
        if exists(join(uri, THRESHOLDS_FILE)):  # the reference's files, of which none are turned
            return False
        raise AuditError(
            exits.USAGE,
            f"{uri}: the run's bundle is gone, and runs of older versions do not record whether images were turned by "
            "their EXIF orientation; name a copy of the bundle with --bundle",
        ) from error
    except ValueError as error:  # BundleError, or a storage that nothing installed can read
        raise AuditError(exits.USAGE, f"{uri}: {error}; name a copy of the run's bundle with --bundle") from error
    if manifest.digest != record.parts["bundle"]:
        raise AuditError(
            exits.USAGE,
            f"{uri}: the run was scored with another bundle, {record.parts['bundle'][:12]}, not "
            f"{manifest.digest[:12]}; name a copy of that one with --bundle",
        )
    return manifest.preprocessing.exif_orientation


def scored_bytes(row: PublishedRow, record: RunRecord) -> bytes:
    """The bytes of the image, read by the rules of the run, if they are those that were scored; of a failed row, that
    are there now. Raises ImageUnavailable, also if the storage refuses."""
    settings = record.parts["settings"]
    allowed = AllowList.of(record.manifest, settings["allow"], settings.get("also", ()))
    try:
        data = fetch(row.uri or "", allowed, settings["max_bytes"], row.version_id).data
    except StorageAccessError as error:
        raise ImageUnavailable(printable(f"the image cannot be had: {error}", 500)) from None
    except FetchError as error:
        raise ImageUnavailable(printable(f"the image cannot be had ({error.code}: {error.message})")) from error
    if row.sha256 is not None and hashlib.sha256(data).hexdigest() != row.sha256:
        raise ImageUnavailable("the image was overwritten since it was scored")
    return data


def _decoded(data: bytes, record: RunRecord, upright: bool) -> npt.NDArray[np.uint8]:
    settings = record.parts["settings"]
    try:
        return decode_whole(data, Limits(settings["max_bytes"], settings["max_pixels"]), upright)
    except ImageError as error:
        raise ImageUnavailable(f"the image cannot be decoded ({error.code}: {error.message})") from error
