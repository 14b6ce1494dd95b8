"""What is known of a frozen manifest without opening it: its rows, shards, columns and digests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from manifests.schema import DUPLICATE

SHARDS_PER_PART = 64


@dataclass(frozen=True)
class Shard:
    """A slice of the frozen manifest: row group `row_group` of the file `part`, with `rows` rows."""

    index: int
    part: str
    row_group: int
    rows: int


@dataclass(frozen=True)
class FrozenManifest:
    """What was frozen. extras: the manifest's further columns; problems: rows by problem code.

    source_sha256 names the source file as it was; digest names the parts. left_out: rows by filter (where, since,
    sample; of limit whether there was more, 1 or 0), without those that were not asked for. places: the first and the
    last position in the source of its rows, and the sum of all; None in records of older versions, which had no
    filters: there they are 0, 1, ...
    """

    rows: int
    shards: tuple[Shard, ...]
    extras: pa.Schema
    source_sha256: str
    digest: str
    problems: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)
    places: tuple[int, int, int] | None = None

    @property
    def budgeted(self) -> int:
        """Rows that are in the error budget: all but duplicates."""
        return self.rows - self.problems.get(DUPLICATE, 0)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its files, in order."""
        return tuple(dict.fromkeys(shard.part for shard in self.shards))

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Small also for many shards, which follow from three numbers."""
        return {
            "rows": self.rows,
            "shards": len(self.shards),
            "shards_per_part": SHARDS_PER_PART,
            "extras": base64.b64encode(self.extras.serialize().to_pybytes()).decode(),
            "source_sha256": self.source_sha256,
            "digest": self.digest,
            "problems": self.problems,
            "left_out": self.left_out,
            "places": self.places,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> FrozenManifest:
        """The inverse of `to_dict`, also of older versions. Raises KeyError if a key is missing."""
        rows, each = found["rows"], found["shards_per_part"]
        spread = "shards" in found
        return cls(
            rows=rows,
            shards=shard_plan(rows, found["shards"], each) if spread else _full(rows, found["shard_rows"], each),
            extras=pa.ipc.read_schema(pa.BufferReader(base64.b64decode(found["extras"]))),
            source_sha256=found["source_sha256"],
            digest=found["digest"],
            problems=dict(found["problems"]),
            left_out=dict(found.get("left_out", {})),
            places=tuple(found["places"]) if found.get("places") else None,
        )


def parts_digest(parts: Iterable[tuple[str, str]]) -> str:
    """The digest of a frozen manifest, from name and SHA-256 of each part, in order."""
    digest = hashlib.sha256()
    for name, sha256 in parts:
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


def shard_plan(rows: int, shards: int, shards_per_part: int = SHARDS_PER_PART) -> tuple[Shard, ...]:
    """So many shards of a manifest of so many rows: the first ones may have one row more than the last."""
    return _shards([rows // shards + (i < rows % shards) for i in range(shards)], shards_per_part)


def _full(rows: int, shard_rows: int, shards_per_part: int) -> tuple[Shard, ...]:
    """As older versions cut: all of them full but the last."""
    return _shards([min(shard_rows, rows - start) for start in range(0, rows, shard_rows)], shards_per_part)


def _shards(sizes: list[int], each: int) -> tuple[Shard, ...]:
    return tuple(Shard(i, f"part-{i // each:05d}.parquet", i % each, rows) for i, rows in enumerate(sizes))
