"""``digests.parquet`` of a run: the files that its published table was made of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AT_ONCE = 4096
DIGESTS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


class DigestList:
    """Writes it: path below the run's folder, size in bytes and SHA-256 of files, in the order of their coming."""

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(path, DIGESTS, compression="zstd")
        self._held: list[dict[str, Any]] = []

    def __enter__(self) -> DigestList:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, name: str, data: bytes) -> None:
        """One file."""
        self._held.append({"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        if len(self._held) == AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._held, schema=DIGESTS))
        self._held = []
