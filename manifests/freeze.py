"""Freezing: a manifest becomes numbered rows in Parquet parts, of which each row group is one shard.

A run works on the frozen manifest only, so that what happens to the source afterwards does not matter.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.duplicates import find_duplicates
from manifests.filters import Filters, Selection, Taken
from manifests.frozen import FrozenManifest, Shard, parts_digest, shard_plan
from manifests.readers import ManifestReader, open_manifest
from manifests.schema import DUPLICATE, KNOWN_COLUMNS, ManifestError, check_names, frozen_schema
from manifests.spread import Spool, in_shards

__all__ = ["Filters", "FrozenManifest", "Shard", "freeze", "freeze_file", "read_shard", "refreeze", "shard_plan"]

# Their pictures are 37 MB: a machine of 16 cores has that many in its object store at once.
MOST_SHARD_ROWS = 256
_IDS = pa.schema([pa.field("row", pa.int64()), pa.field("image_id", pa.string())])
_EVERYTHING = Filters()


def freeze(
    reader: ManifestReader,
    output: Path,
    *,
    name: str,
    source_sha256: str,
    filters: Filters = _EVERYTHING,
    shard_rows: int | None = None,
    reserved: frozenset[str] = frozenset(),
) -> FrozenManifest:
    """Write a manifest into the folder `output` as part-00000.parquet, ..., with rows from all over it in every shard.

    Each part has `frozen_schema(extras)`, one row group per shard, at most 64 of them. Of n shards, the k-th row
    that is taken is in shard k mod n, and the rows of a shard are in source order. The same source and settings give
    the same bytes, hence the same digest. name: of the manifest, for messages; source_sha256: what tells whether it
    is the same again; filters: which rows are taken; shard_rows: most rows of a shard, None for a sixteenth of the
    manifest but 16 to 256; reserved: names that further columns must not have.

    Raises ManifestError if the manifest as a whole cannot be used (a bad row is a row with a problem_code), or no row
    of it is left, FileExistsError if `output` has parts already, ValueError for a shard_rows below 1.
    """
    if shard_rows is not None and shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, not {shard_rows}")
    _make_empty(output)
    check_names(name, reader.schema_extras, reserved - set(KNOWN_COLUMNS.names))
    schema = frozen_schema(reader.schema_extras)
    # Beside the output, because there is room there; the default place may be memory.
    with tempfile.TemporaryDirectory(prefix=".freeze-", dir=output.absolute().parent) as folder:
        work = Path(folder)
        with closing(Selection(filters, reader.schema_extras, name, work)) as selection:
            spool = _spool(selection(reader.batches()), schema, work, name)
        if spool.rows == 0:
            raise selection.none_left(name)
        shards = shard_plan(spool.rows, _count(spool.rows, shard_rows))
        ordered = in_shards(_marked(spool, work), schema, len(shards), spool.bytes, work)
        problems, places = _write_parts(ordered, output, shards)
    return _frozen(output, shards, source_sha256, problems, places, selection.left_out)


def freeze_file(
    source: Path,
    output: Path,
    *,
    format: str | None = None,
    filters: Filters = _EVERYTHING,
    shard_rows: int | None = None,
    reserved: frozenset[str] = frozenset(),
) -> FrozenManifest:
    """`freeze` for a manifest that is one file. Raises ManifestError also if it is written to meanwhile."""
    before = _state(source)
    with open(source, "rb") as file:
        source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return freeze(
        _Unchanged(open_manifest(source, format), source, before),
        output,
        name=str(source),
        source_sha256=source_sha256,
        filters=filters,
        shard_rows=shard_rows,
        reserved=reserved,
    )


def refreeze(batches: Iterable[pa.RecordBatch], output: Path, rows: int, source: FrozenManifest) -> FrozenManifest:
    """Write so many rows of a frozen manifest, ``source``, into the folder ``output`` as one of their own.

    They keep their place in the manifest (column row) and get other shards, in the order in which they come. Raises
    FileExistsError as ``freeze``.
    """
    _make_empty(output)
    shards = shard_plan(rows, _count(rows, None))
    return _frozen(output, shards, source.source_sha256, *_write_parts(iter(batches), output, shards), {})


class _Unchanged:
    """A reader whose rows were all read before its file was written to."""

    def __init__(self, reader: ManifestReader, source: Path, before: tuple[int, int, int]):
        self.schema_extras = reader.schema_extras
        self._reader, self._source, self._before = reader, source, before

    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._reader.batches():
            self._check()
            yield batch
        self._check()

    def _check(self) -> None:
        if _state(self._source) != self._before:
            raise ManifestError(f"{self._source}: was written to while it was read; copy it first and freeze the copy")


def _count(rows: int, shard_rows: int | None) -> int:
    """How many shards so many rows make."""
    return -(-rows // (shard_rows or min(max(-(-rows // 16), 16), MOST_SHARD_ROWS)))


def _make_empty(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if any(output.glob("part-*.parquet")):
        raise FileExistsError(f"{output} holds a frozen manifest already; freeze into an empty folder")


def _frozen(
    output: Path,
    shards: tuple[Shard, ...],
    source_sha256: str,
    problems: dict[str, int],
    places: tuple[int, int, int],
    left_out: dict[str, int],
) -> FrozenManifest:
    schema = pq.read_schema(output / shards[0].part)
    extras = pa.schema([field.remove_metadata() for field in list(schema)[len(frozen_schema(pa.schema([]))) :]])
    rows, digest = sum(shard.rows for shard in shards), _digest(output, shards)
    return FrozenManifest(rows, shards, extras, source_sha256, digest, problems, left_out, places)


def read_shard(file: BinaryIO | Path, row_group: int) -> pa.Table:
    """The rows of one shard, from the part that holds it, with `frozen_schema`."""
    with pq.ParquetFile(file) as part:
        return part.read_row_group(row_group)


def _spool(taken: Iterator[Taken], schema: pa.Schema, work: Path, name: str) -> Spool:
    """Read the source once, into a file below work, and the names of its good rows into work/ids.parquet."""
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), schema).close()
    except pa.ArrowNotImplementedError as error:
        raise ManifestError(f"{name}: a column's type cannot be written ({error}); cast or drop it") from error
    ids = pq.ParquetWriter(work / "ids.parquet", _IDS, compression="lz4")
    with Spool(work / "rows", schema) as spool, ids:
        for row, image, batch in taken:
            place = [row, pa.nulls(len(batch), pa.int32()), image]
            spool.write(pa.RecordBatch.from_arrays([*place, *batch.columns], schema=schema))
            names = pa.RecordBatch.from_arrays([row, image], schema=_IDS)
            ids.write_batch(names.filter(batch["problem_code"].is_null()))
    return spool


def _write_parts(
    batches: Iterator[pa.RecordBatch], output: Path, shards: tuple[Shard, ...]
) -> tuple[dict[str, int], tuple[int, int, int]]:
    """Cut the batches into shards, in their order. Returns rows by problem code, and first, last and sum of row."""
    problems: Counter[str] = Counter()
    firsts, lasts, sums = [], [], []
    writer: pq.ParquetWriter | None = None
    try:
        for shard, table in zip(shards, _cut(batches, shards), strict=True):
            if shard.row_group == 0:
                if writer is not None:
                    writer.close()
                # A dictionary costs more than it saves in so few rows.
                writer = pq.ParquetWriter(output / shard.part, table.schema, compression="zstd", use_dictionary=False)
            assert writer is not None
            writer.write_table(table, row_group_size=shard.rows)
            problems.update(table["problem_code"].drop_null().to_pylist())
            rows = table["row"].to_numpy()
            firsts.append(int(rows.min()))
            lasts.append(int(rows.max()))
            sums.append(int(rows.sum()))
    finally:
        if writer is not None:
            writer.close()
    return dict(sorted(problems.items())), (min(firsts), max(lasts), sum(sums))


def _marked(spool: Spool, work: Path) -> Iterator[pa.RecordBatch]:
    """The spooled rows, with the duplicates marked."""
    duplicates = find_duplicates(work / "ids.parquet", work)
    ahead = next(duplicates, None)
    for batch in spool.read():
        last = batch["row"][-1].as_py()
        found: dict[int, int] = {}
        while ahead is not None and ahead[0] <= last:
            found[ahead[0]] = ahead[1]
            ahead = next(duplicates, None)
        if found:
            at = np.searchsorted(batch["row"].to_numpy(), list(found)).tolist()
            codes, messages = batch["problem_code"].to_pylist(), batch["problem_message"].to_pylist()
            for i, first in zip(at, found.values(), strict=True):
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
