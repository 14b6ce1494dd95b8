"""What is known of a frozen manifest without opening it: its rows, shards, columns and digests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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

    source_sha256 names the source file as it was; digest names the parts.
    """

    rows: int
    shards: tuple[Shard, ...]
    extras: pa.Schema
    source_sha256: str
    digest: str
    problems: dict[str, int]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its files, in order."""
        return tuple(dict.fromkeys(shard.part for shard in self.shards))

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Small also for many shards, which follow from three numbers."""
        return {
            "rows": self.rows,
            "shard_rows": self.shards[0].rows,
            "shards_per_part": SHARDS_PER_PART,
            "extras": base64.b64encode(self.extras.serialize().to_pybytes()).decode(),
            "source_sha256": self.source_sha256,
            "digest": self.digest,
            "problems": self.problems,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> FrozenManifest:
        """The inverse of `to_dict`. Raises KeyError if a key is missing."""
        return cls(
            rows=found["rows"],
            shards=shard_plan(found["rows"], found["shard_rows"], found["shards_per_part"]),
            extras=pa.ipc.read_schema(pa.BufferReader(base64.b64decode(found["extras"]))),
            source_sha256=found["source_sha256"],
            digest=found["digest"],
            problems=dict(found["problems"]),
        )


def parts_digest(parts: Iterable[tuple[str, str]]) -> str:
    """The digest of a frozen manifest, from name and SHA-256 of each part, in order."""
    digest = hashlib.sha256()
    for name, sha256 in parts:
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


def shard_plan(rows: int, shard_rows: int, shards_per_part: int = SHARDS_PER_PART) -> tuple[Shard, ...]:
    """The shards of a manifest of so many rows; the last may be smaller, none is empty."""
    return tuple(
        Shard(
            i,
            f"part-{i // shards_per_part:05d}.parquet",
            i % shards_per_part,
            min(shard_rows, rows - i * shard_rows),
        )
        for i in range(-(-rows // shard_rows))
    )
