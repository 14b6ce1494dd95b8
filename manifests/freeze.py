"""Freezing: a manifest becomes numbered rows in Parquet parts, of which each row group is one shard.

A run works on the frozen manifest only, so that what happens to the source afterwards does not matter.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.duplicates import find_duplicates
from manifests.frozen import FrozenManifest, Shard, parts_digest, shard_plan
from manifests.readers import open_manifest
from manifests.schema import (
    DUPLICATE,
    KNOWN_COLUMNS,
    MALFORMED_VALUE,
    ManifestError,
    check_names,
    frozen_schema,
    image_id,
    row_id,
)

__all__ = ["FrozenManifest", "Shard", "freeze", "read_shard", "refreeze", "shard_plan"]

# Their pictures are 37 MB: a machine of 16 cores has that many in its object store at once.
MOST_SHARD_ROWS = 256
_IDS = pa.schema([pa.field("row", pa.int64()), pa.field("image_id", pa.string())])


def freeze(
    source: Path,
    output: Path,
    *,
    format: str | None = None,
    shard_rows: int | None = None,
    limit: int | None = None,
    reserved: frozenset[str] = frozenset(),
) -> FrozenManifest:
    """Write the manifest `source` into the folder `output` as part-00000.parquet, ..., rows in source order.

    Each has `frozen_schema(extras)`, one row group per shard, at most 64 of them. The same source and
    settings give the same bytes, hence the same digest. shard_rows: rows of a shard, None for a sixteenth of
    the manifest but 16 to 256; limit: only so many rows from the start; reserved: names that further columns
    must not have.

    Raises ManifestError if the manifest as a whole cannot be used (a bad row is a row with a problem_code),
    FileExistsError if `output` has parts already, ValueError for a shard_rows or limit below 1.
    """
    for name, number in (("shard_rows", shard_rows), ("limit", limit)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")
    _make_empty(output)
    before = _state(source)
    with open(source, "rb") as file:
        source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    # Beside the output, because there is room there; the default place may be memory.
    with tempfile.TemporaryDirectory(prefix=".freeze-", dir=output.absolute().parent) as folder:
        work = Path(folder)
        rows = _spool(source, work, format, limit, reserved)
        if _state(source) != before:
            raise ManifestError(f"{source}: was written to while it was read; copy it first and freeze the copy")
        if rows == 0:
            raise ManifestError(f"{source}: the manifest has no rows; check how it was made")
        shards = shard_plan(rows, shard_rows or _shard_rows(rows))
        with pq.ParquetFile(work / "rows.parquet") as spool:
            problems = _write_parts(_marked(spool, work), output, shards)
    return _frozen(output, shards, source_sha256, problems)


def refreeze(batches: Iterable[pa.RecordBatch], output: Path, rows: int, source: FrozenManifest) -> FrozenManifest:
    """Write so many rows of a frozen manifest, ``source``, into the folder ``output`` as one of their own.

    They keep their place in the manifest (column row) and get other shards. Raises FileExistsError as ``freeze``.
    """
    _make_empty(output)
    shards = shard_plan(rows, _shard_rows(rows))
    return _frozen(output, shards, source.source_sha256, _write_parts(iter(batches), output, shards))


def _shard_rows(rows: int) -> int:
    return min(max(-(-rows // 16), 16), MOST_SHARD_ROWS)


def _make_empty(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if any(output.glob("part-*.parquet")):
        raise FileExistsError(f"{output} holds a frozen manifest already; freeze into an empty folder")


def _frozen(output: Path, shards: tuple[Shard, ...], source_sha256: str, problems: dict[str, int]) -> FrozenManifest:
    schema = pq.read_schema(output / shards[0].part)
    extras = [field.remove_metadata() for field in list(schema)[len(frozen_schema(pa.schema([]))) :]]
    rows = sum(shard.rows for shard in shards)
    return FrozenManifest(rows, shards, pa.schema(extras), source_sha256, _digest(output, shards), problems)


def read_shard(file: BinaryIO | Path, row_group: int) -> pa.Table:
    """The rows of one shard, from the part that holds it, with `frozen_schema`."""
    with pq.ParquetFile(file) as part:
        return part.read_row_group(row_group)


def _spool(source: Path, work: Path, format: str | None, limit: int | None, reserved: frozenset[str]) -> int:
    """Read the source once, into work/rows.parquet, and the names of its good rows into work/ids.parquet."""
    reader = open_manifest(source, format)
    check_names(source, reader.schema_extras, reserved - set(KNOWN_COLUMNS.names))
    schema = frozen_schema(reader.schema_extras)
    rows = 0
    with ExitStack() as stack:
        try:
            spool = stack.enter_context(pq.ParquetWriter(work / "rows.parquet", schema, compression="lz4"))
        except pa.ArrowNotImplementedError as error:
            raise ManifestError(f"{source}: a column's type cannot be written ({error}); cast or drop it") from error
        ids = stack.enter_context(pq.ParquetWriter(work / "ids.parquet", _IDS, compression="lz4"))
        for batch in reader.batches():
            if limit is not None and rows + len(batch) > limit:
                batch = batch.slice(0, limit - rows)
            number = pa.array(range(rows, rows + len(batch)), pa.int64())
            names = pa.array(_names(batch, rows), pa.string())
            place = [number, pa.nulls(len(batch), pa.int32()), names]
            spool.write_batch(pa.RecordBatch.from_arrays([*place, *batch.columns], schema=schema))
            good = pa.RecordBatch.from_arrays([number, names], schema=_IDS).filter(batch["problem_code"].is_null())
            ids.write_batch(good)
            rows += len(batch)
            if rows == limit:
                break
    return rows


def _names(batch: pa.RecordBatch, start: int) -> list[str]:
    known = [batch[name].to_pylist() for name in ("uri", "version_id", "etag", "problem_code", "problem_message")]
    return [
        # A row with a bad time still names an image; of the other problems each is one of the uri or may be.
        image_id(uri, version, etag)
        if uri and code in (None, MALFORMED_VALUE)
        else row_id(i, (uri, version, etag, code, message))
        for i, (uri, version, etag, code, message) in enumerate(zip(*known, strict=True), start)
    ]


def _write_parts(batches: Iterator[pa.RecordBatch], output: Path, shards: tuple[Shard, ...]) -> dict[str, int]:
    problems: Counter[str] = Counter()
    writer: pq.ParquetWriter | None = None
    try:
        for shard, table in zip(shards, _cut(batches, shards), strict=True):
            if shard.row_group == 0:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(output / shard.part, table.schema, compression="zstd")
            assert writer is not None
            writer.write_table(table, row_group_size=shard.rows)
            problems.update(code for code in table["problem_code"].to_pylist() if code is not None)
    finally:
        if writer is not None:
            writer.close()
    return dict(sorted(problems.items()))


def _marked(spool: pq.ParquetFile, work: Path) -> Iterator[pa.RecordBatch]:
    """The spooled rows, with the duplicates marked."""
    duplicates = find_duplicates(work / "ids.parquet", work)
    ahead = next(duplicates, None)
    start = 0
    for batch in spool.iter_batches(batch_size=8192):
        found: dict[int, int] = {}
        while ahead is not None and ahead[0] < start + len(batch):
            found[ahead[0] - start] = ahead[1]
            ahead = next(duplicates, None)
        start += len(batch)
        if found:
            codes, messages = batch["problem_code"].to_pylist(), batch["problem_message"].to_pylist()
            for i, first in found.items():
                codes[i], messages[i] = DUPLICATE, f"same uri and version as row {first}"
            for name, values in (("problem_code", codes), ("problem_message", messages)):
                batch = batch.set_column(batch.schema.get_field_index(name), name, pa.array(values, pa.string()))
        yield batch


def _cut(batches: Iterator[pa.RecordBatch], shards: tuple[Shard, ...]) -> Iterator[pa.Table]:
    """One table per shard, with its number in the column shard."""
    held: list[pa.RecordBatch] = []
    for shard in shards:
        while sum(map(len, held)) < shard.rows:
            held.append(next(batches))
        table = pa.Table.from_batches(held)
        numbers = pa.array([shard.index] * shard.rows, pa.int32())
        yield (
            table.slice(0, shard.rows)
            .set_column(table.schema.get_field_index("shard"), "shard", numbers)
            .combine_chunks()
        )
        held = table.slice(shard.rows).to_batches()


def _state(source: Path) -> tuple[int, int, int]:
    found = os.stat(source)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _digest(output: Path, shards: tuple[Shard, ...]) -> str:
    found = []
    for part in dict.fromkeys(shard.part for shard in shards):
        with open(output / part, "rb") as file:
            found.append((part, hashlib.file_digest(file, "sha256").hexdigest()))
    return parts_digest(found)
