"""Rows of a long table brought into the order of their shards, outside memory.

Row k goes to shard k mod n, so that a shard has rows from all over a manifest: in the order of the keys, its loader
would read one prefix, and object stores throttle by prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

# A bucket is held in memory; each is an open file.
BUCKET_BYTES = 64 * 2**20
MOST_BUCKETS = 256
_FORMAT = pa.ipc.IpcWriteOptions(compression="lz4")


class Spool:
    """Batches in a file of Arrow's stream format, for reading them once more; with their rows and bytes so far."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._path, self.rows, self.bytes = path, 0, 0
        self._writer = pa.ipc.new_stream(str(path), schema, options=_FORMAT)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch, which may be empty."""
        if len(batch):
            self._writer.write_batch(batch)
            self.rows, self.bytes = self.rows + len(batch), self.bytes + batch.nbytes

    def close(self) -> None:
        """No more is written."""
        self._writer.close()

    def read(self) -> Iterator[pa.RecordBatch]:
        """The batches, after `close`."""
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def in_shards(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, shards: int, size: int, work: Path
) -> Iterator[pa.RecordBatch]:
    """All rows by shard, in their order within each: row k of the batches is of shard k mod ``shards``.

    shards: at most as many as there are rows; size: bytes of all batches, about; work: a folder of our own. One batch
    is in memory at a time.
    """
    count = int(min(max(1, -(-size // BUCKET_BYTES)), MOST_BUCKETS, shards))
    with ExitStack() as stack:
        buckets = [stack.enter_context(Spool(work / f"bucket-{i:03d}", schema)) for i in range(count)]
        start = 0
        for batch in batches:
            shard = np.arange(start, start + len(batch)) % shards
            start += len(batch)
            _distribute(batch, shard * count // shards, buckets)
    first = 0
    for i, bucket in enumerate(buckets):
        last = -(-shards * (i + 1) // count)  # of the bucket are shards first to last - 1
        yield _by_shard(bucket, schema, last - first)
        (work / f"bucket-{i:03d}").unlink()
        first = last


def _distribute(batch: pa.RecordBatch, bucket: np.ndarray, buckets: list[Spool]) -> None:
    order = np.argsort(bucket, kind="stable")
    ends = np.cumsum(np.bincount(bucket, minlength=len(buckets)))
    ordered = batch.take(pa.array(order))
    for i, end in enumerate(ends.tolist()):
        start = int(ends[i - 1]) if i else 0
        buckets[i].write(ordered.slice(start, end - start))


def _by_shard(bucket: Spool, schema: pa.Schema, shards: int) -> pa.RecordBatch:
    """The rows of a bucket by shard. They came shard by shard, from the first to the last, again and again."""
    table = pa.Table.from_batches(list(bucket.read()), schema).combine_chunks()
    (batch,) = table.to_batches()
    return batch.take(pa.array(np.argsort(np.arange(len(batch)) % shards, kind="stable")))
