"""Training images: found in MVTec AD's layout, decoded once into an array on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomaly_core.bundle_manifest import check_categories
from anomaly_core.preprocess import SIZE, ImageError, Preprocessing, decode
from jobs.listing import Entry, listing
from jobs.storage import read_bytes
from jobs.training.config import TrainingError
from jobs.uris import is_local
from manifests.build import is_image_name

READERS = 16
# A category of such a name would share a file of the training with the router or the settings.
TAKEN = ("router", "settings")


@dataclass(frozen=True)
class TrainingImages:
    """The normal images of one category. identity: digest of their names and of what is in them: of the bytes of local
    files, of sizes and ETags elsewhere."""

    category: str
    uris: tuple[str, ...]
    identity: str


def find_images(uri: str, categories: Sequence[str]) -> list[TrainingImages]:
    """``<category>/train/good/*`` below a folder or prefix, categories in alphabetical order, which is class order.

    Raises TrainingError if there is none, or none for a category that was asked for.
    """
    found: dict[str, list[Entry]] = {}
    for entry in listing(uri):
        parts = entry.relative_path.split("/")
        if len(parts) == 4 and parts[1:3] == ["train", "good"] and is_image_name(parts[3]):
            found.setdefault(parts[0], []).append(entry)
    if not found:
        raise TrainingError(f"{uri}: no images at <category>/train/good/ (the layout of MVTec AD)")
    missing = sorted(set(categories) - set(found))
    if missing:
        raise TrainingError(f"{uri}: no images for {', '.join(missing)}; there are {', '.join(sorted(found))}")
    try:
        names = check_categories(sorted(set(categories) or set(found)))
    except ValueError as error:
        raise TrainingError(f"{uri}: {error}") from error
    result = []
    for name in names:
        if name.lower() in TAKEN:
            raise TrainingError(f"{uri}/{name}: no category can be called that; give the folder another name")
        entries = sorted(found[name], key=lambda entry: entry.uri)
        if len(entries) < 2:
            raise TrainingError(f"{uri}/{name}: one normal image is not enough; give two or more")
        with ThreadPoolExecutor(READERS) as pool:
            content = list(pool.map(_content, entries))
        identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        result.append(TrainingImages(name, tuple(entry.uri for entry in entries), identity))
    return result


def _content(entry: Entry) -> list[object]:
    if is_local(entry.uri):
        # A copy of the folder, or another mount of it, has other times and the same images: no reason to begin again.
        version: str | None = hashlib.sha256(read_bytes(entry.uri)).hexdigest()
    else:
        version = entry.etag or (entry.last_modified.isoformat() if entry.last_modified else None)
    return [entry.relative_path, entry.size, version]


def decode_images(uris: Sequence[str], path: Path, preprocessing: Preprocessing) -> tuple[npt.NDArray[np.uint8], str]:
    """Decode images into a memory map uint8 (N, 224, 224, 3) at ``path``; also the SHA-256 over their bytes in order.

    Raises TrainingError naming the first image that cannot be decoded: a model must not be fitted to what is left.
    """
    pixels = np.memmap(path, dtype=np.uint8, mode="w+", shape=(len(uris), SIZE, SIZE, 3))

    def one(index: int) -> bytes:
        data = read_bytes(uris[index])
        try:
            pixels[index] = decode(data, preprocessing=preprocessing).pixels
        except ImageError as error:
            raise TrainingError(
                f"{uris[index]}: {error.code}: {error.message}; take the image out of the training set"
            ) from error
        return hashlib.sha256(data).digest()

    digest = hashlib.sha256()
    with ThreadPoolExecutor(READERS) as pool:
        for part in pool.map(one, range(len(uris))):
            digest.update(part)
    return pixels, digest.hexdigest()
