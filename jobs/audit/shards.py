"""Which shards of a run have a file that is whole, by its footer alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.exits import FAILED, AuditError
from jobs.audit.record import RunFolder, RunRecord, shard_name
from jobs.audit.results import DAMAGE
from jobs.listing import listing
from jobs.storage import reading
from jobs.uris import join
from manifests.freeze import FrozenManifest

# A footer has a hundred bytes or more a column; most are read at once.
FOOTER_BYTES = 2**16


def missing_shards(folder: RunFolder, record: RunRecord, frozen: FrozenManifest) -> tuple[int, ...]:
    """The shards without a file. A file that is not of this run, or not whole, counts as missing."""
    present = {entry.relative_path for entry in listing(folder.shards)}
    there = [shard for shard in frozen.shards if shard_name(shard.index) in present]
    with ThreadPoolExecutor(16) as pool:
        good = pool.map(lambda shard: _is_good(folder, record, shard.index, shard.rows), there)
        done = {shard.index for shard, ok in zip(there, good, strict=True) if ok}
    return tuple(shard.index for shard in frozen.shards if shard.index not in done)


def check_there(runs: Iterable[tuple[RunFolder, FrozenManifest]]) -> None:
    """Raises AuditError if a shard of a committed run, or of one of its retries, has no file: before a version is begun
    that cannot be finished without it."""
    gone = []
    for folder, frozen in runs:
        present = {entry.relative_path for entry in listing(folder.shards)}
        gone += [
            join(folder.shards, name) for shard in frozen.shards if (name := shard_name(shard.index)) not in present
        ]
    if gone:
        others = f", and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise AuditError(
            FAILED,
            f"{gone[0]}: the shard is gone{others}; put copies of the files there. Nothing was changed, and the "
            "results that are published stay as they are",
        )


def _is_good(folder: RunFolder, record: RunRecord, shard: int, rows: int) -> bool:
    data = _footer(join(folder.shards, shard_name(shard)))
    try:
        footer = pq.read_metadata(pa.BufferReader(data))
    except DAMAGE:  # apart from the reading: an OSError of the storage says nothing of the file
        return False
    metadata = footer.metadata or {}
    return footer.num_rows == rows and metadata.get(b"line_audit.fingerprint") == record.fingerprint.encode()


def _footer(uri: str) -> bytes:
    """The end of a Parquet file: its footer, whose length stands before the last four bytes."""
    with reading(uri) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - FOOTER_BYTES))
        data = file.read()
        length = int.from_bytes(data[-8:-4], "little") + 8
        if length > len(data):
            file.seek(max(0, size - length))
            data = file.read()
        return data
