"""Training images: found in MVTec AD's layout, decoded once into an array on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomaly_core.bundle_manifest import check_categories
from anomaly_core.preprocess import SIZE, ImageError, Preprocessing, decode
from jobs.listing import listing
from jobs.storage import read_bytes
from jobs.training.config import TrainingError
from manifests.build import is_image_name

READERS = 16
# A category of such a name would share a file of the training with the router or the settings.
TAKEN = ("router", "settings")


@dataclass(frozen=True)
class TrainingImages:
    """The normal images of one category. identity: digest of names, sizes and versions, without reading them."""

    category: str
    uris: tuple[str, ...]
    identity: str


def find_images(uri: str, categories: Sequence[str]) -> list[TrainingImages]:
    """``<category>/train/good/*`` below a folder or prefix, categories in alphabetical order, which is class order.

    Raises TrainingError if there is none, or none for a category that was asked for.
    """
    found: dict[str, list[tuple[str, list[object]]]] = {}
    for entry in listing(uri):
        parts = entry.relative_path.split("/")
        if len(parts) == 4 and parts[1:3] == ["train", "good"] and is_image_name(parts[3]):
            version = entry.etag or (entry.last_modified.isoformat() if entry.last_modified else None)
            found.setdefault(parts[0], []).append((entry.uri, [entry.relative_path, entry.size, version]))
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
        entries = sorted(found[name])
        if len(entries) < 2:
            raise TrainingError(f"{uri}/{name}: one normal image is not enough; give two or more")
        identity = hashlib.sha256(json.dumps([key for _, key in entries]).encode()).hexdigest()
        result.append(TrainingImages(name, tuple(u for u, _ in entries), identity))
    return result


def decode_images(
    uris: Sequence[str], path: Path, preprocessing: Preprocessing
) -> tuple[npt.NDArray[np.uint8], list[bytes]]:
    """Decode images into a memory map uint8 (N, 224, 224, 3) of a file at ``path``, which has no name afterwards; also
    the SHA-256 of each image's file.

    Raises TrainingError naming the first image that cannot be decoded: a model must not be fitted to what is left.
    """
    pixels = np.memmap(path, dtype=np.uint8, mode="w+", shape=(len(uris), SIZE, SIZE, 3))
    path.unlink()  # gone when the process is, however it ends

    def one(index: int) -> bytes:
        try:
            data = read_bytes(uris[index])
            pixels[index] = decode(data, preprocessing=preprocessing).pixels
        except ImageError as error:
            raise TrainingError(
                f"{uris[index]}: {error.code}: {error.message}; take the image out of the training set"
            ) from error
        except OSError as error:
            raise TrainingError(
                f"{uris[index]}: cannot be read ({error}); take the image out of the training set"
            ) from error
        return hashlib.sha256(data).digest()

    with ThreadPoolExecutor(READERS) as pool:
        return pixels, list(pool.map(one, range(len(uris))))


def content(digests: Iterable[bytes]) -> str:
    """Digest of images, from the SHA-256 of each of their files, in their order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def content_of(uris: Sequence[str]) -> str:
    """Digest of images, from their files. Raises FileNotFoundError, StorageAccessError."""
    with ThreadPoolExecutor(READERS) as pool:
        return content(pool.map(lambda uri: hashlib.sha256(read_bytes(uri)).digest(), uris))
