"""A run whose shards are written without models, for what happens between the shards and the published table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.record import RunFolder, RunRecord, shard_name
from jobs.audit.results import file_metadata, shard_schema
from jobs.audit.write import parquet_bytes
from jobs.storage import upload, write_bytes
from jobs.uris import join
from manifests.freeze import Filters, FrozenManifest, freeze_file, read_shard

FILLED = {pa.string(): "x", pa.int32(): 0, pa.timestamp("us", tz="UTC"): 0}


def scored_run(
    work: Path, manifest: pa.Table, shard_rows: int, filters: Filters | None = None
) -> tuple[RunFolder, RunRecord, FrozenManifest]:
    """Its manifest is frozen, and every shard is there."""
    pq.write_table(manifest, work / "manifest.parquet")
    folder = RunFolder(str(work / "out"), "2026-01-02", "audit")
    frozen = freeze_file(
        work / "manifest.parquet", work / "frozen", filters=filters or Filters(), shard_rows=shard_rows
    )
    for part in frozen.parts:
        upload(work / "frozen" / part, join(folder.manifest, part))
    record = RunRecord(
        run_id=folder.run_id, manifest="m", source_sha256=frozen.source_sha256, bundle="b", device="cpu",
        fingerprint="f", parts={"bundle": "b"}, frozen=frozen.to_dict(), results=folder.results, created_at="",
    )  # fmt: skip
    for index in range(len(frozen.shards)):
        write_shard(folder, record, frozen, index)
    return folder, record, frozen


def write_shard(folder: RunFolder, record: RunRecord, frozen: FrozenManifest, index: int) -> None:
    """The file of a shard: what the manifest says, and otherwise nothing."""
    shard = frozen.shards[index]
    rows = read_shard(Path(folder.manifest) / shard.part, shard.row_group)
    schema = shard_schema(frozen.extras)
    columns = [
        rows[field.name].combine_chunks()
        if field.name in rows.column_names
        else pa.nulls(len(rows), field.type)
        if field.nullable
        else pa.array([FILLED[field.type]] * len(rows), field.type)
        for field in schema
    ]
    metadata = file_metadata(record.run_id, record.fingerprint, "b", index)
    data = parquet_bytes(pa.Table.from_arrays(columns, schema=schema), metadata)
    write_bytes(join(folder.shards, shard_name(index)), data)
