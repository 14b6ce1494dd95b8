"""Images that were read, or could be: what is asked for to learn whether a storage is open to us."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.access import AllowList
from jobs.audit.results import DAMAGE
from jobs.storage import reading
from jobs.storage_errors import StorageAccessError
from jobs.uris import path_of, scheme_of

Image = tuple[str, str | None]  # uri and version
# So many shards of an earlier start are looked into, the last ones first: a storage that they do not name gave little.
MOST_FILES = 64
# Multiples of it, without their whole numbers, are spread evenly however many there are.
GOLDEN = 0.618034


@dataclass(frozen=True)
class Earlier:
    """What a retry knows of its run. table: the published one. parts: of the run's frozen manifest. Both are URIs."""

    table: str
    parts: tuple[str, ...]


def place_of(uri: str, allowed: AllowList) -> str:
    """What shares one lock: bucket or host of a URI; of local files the allowed folder, which may be a disk."""
    if "://" not in uri and not uri.startswith("/"):
        uri = f"{allowed.base.rstrip('/')}/{uri}"
    if scheme_of(uri) != "file":
        return "/".join(uri.split("/")[:3])
    path = os.path.normpath(path_of(uri))  # as text: a disk that hangs is not asked
    folders = {os.path.normpath(path_of(prefix)) for prefix in allowed.prefixes if scheme_of(prefix) == "file"}
    around = [folder for folder in folders if path == folder or path.startswith(folder.rstrip("/") + "/")]
    return max(around, key=len, default="local files")


def is_disk(place: str) -> bool:
    """Whether a place is of local files: one that went away says of every file that it is not there."""
    return "://" not in place


def some_images(parts: Sequence[str], most: int | None = None) -> Iterator[Image]:
    """An image of every shard in some parts of a frozen manifest, by their URIs; of so many shards of each.

    The first rows of all shards are neighbours in the manifest, and may be of one storage: only of the first shard it
    is the first image, of the others one that is further on, so that all of the manifest is met with.
    """
    looked_at = 0
    for part in parts:
        with reading(part) as file, pq.ParquetFile(file) as table:
            for shard in range(min(table.num_row_groups, most or table.num_row_groups)):
                rows = table.read_row_group(shard, ["uri", "version_id", "problem_code"]).to_pylist()
                start = int(looked_at * GOLDEN % 1 * len(rows))
                looked_at += 1
                for row in rows[start:] + rows[:start]:
                    if row["problem_code"] is None:
                        yield row["uri"], row["version_id"]
                        break


def images_read(files: Iterable[str], allowed: AllowList) -> dict[str, Image]:
    """By storage, an image that these shards or published tables say was read; the first files come first.

    No more of them is read than is needed for one image of every storage that images may come from. One that cannot be
    read proves nothing; what is wrong with it, the commit says.
    """
    wanted = {place_of(prefix, allowed) for prefix in allowed.prefixes}
    found: dict[str, Image] = {}
    for file in islice(files, MOST_FILES):
        with suppress(*DAMAGE, StorageAccessError):
            for image in _read(file):
                found.setdefault(place_of(image[0], allowed), image)
                if wanted <= found.keys():
                    return found
    return found


def _read(uri: str) -> Iterator[Image]:
    with reading(uri) as file, pq.ParquetFile(file) as table:
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, ["uri", "version_id", "error_stage"])
            there = pc.invert(pc.is_in(rows["error_stage"], pc.cast(["manifest", "fetch"], "string")))
            for row in rows.filter(there).to_pylist():
                yield row["uri"], row["version_id"]
