"""Stage 3, on CPUs: pictures, then one Parquet file for the shard, then a small receipt for the driver."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.figures import Meter
from jobs.audit.orphans import end_with_parent
from jobs.audit.receipt import Receipt
from jobs.audit.record import shard_name
from jobs.audit.render import RenderSettings, render
from jobs.audit.results import file_metadata, shard_schema
from jobs.monitoring.logs import LogSettings, log_as
from jobs.storage import write_bytes
from jobs.uris import join

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WriteSettings:
    """What the write stage needs. extras: serialised Arrow schema of the manifest's further columns."""

    folder: str
    extras: bytes
    rows_by_shard: dict[int, int]
    run_id: str
    fingerprint: str
    bundle_digest: str
    render: RenderSettings
    log: LogSettings | None = None


class Write:
    """A decided shard to its file. The file is there whole, or not at all."""

    def __init__(self, settings: WriteSettings, registry: Any):
        self.settings, self.registry = settings, registry

    def __call__(self, table: pa.Table) -> pa.Table:
        """One shard in, the row of its receipt out."""
        meter = Meter()
        shards = table["shard"].unique().to_pylist()
        if len(shards) != 1:
            raise RuntimeError(f"rows of {len(shards)} shards in one block: the chain did not keep shards whole")
        (shard,) = shards
        log_as(self.settings.log, shard)
        planned = self.settings.rows_by_shard[shard]
        if len(table) != planned:
            raise RuntimeError(f"shard {shard}: {len(table)} rows reached the writer, {planned} planned")
        extras = pa.ipc.read_schema(pa.BufferReader(self.settings.extras))
        as_they_are = [*extras.names, "error_map"]
        rows = table.drop_columns(as_they_are).to_pylist()
        for row, error_map in zip(rows, table["error_map"], strict=True):  # no list of 784 numbers for each
            row["error_map"] = error_map.values.to_numpy() if error_map.is_valid else None
        render(rows, self.settings.render)
        now = datetime.now(UTC)
        for row in rows:
            row.update(
                status="failed" if row["error_stage"] else "scored",
                run_id=self.settings.run_id,
                bundle_digest=self.settings.bundle_digest,
                scored_at=now,
            )
        result = _result(table, rows, extras, as_they_are)
        metadata = file_metadata(self.settings.run_id, self.settings.fingerprint, self.settings.bundle_digest, shard)
        write_bytes(join(self.settings.folder, shard_name(shard)), parquet_bytes(result, metadata))
        spent, receipt = meter.read(len(rows)), Receipt.of(shard, rows)
        self.registry.spent.remote("write", spent, shard)
        _log.info(
            "shard written", extra={"rows": len(rows), "seconds": spent.wall, "decisions": dict(receipt.decisions)}
        )
        return receipt.to_table()


def parquet_bytes(table: pa.Table, metadata: dict[str, str]) -> bytes:
    """A Parquet file (zstd, statistics, checksums of pages) as bytes, with key-value metadata in its footer."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return buffer.getvalue()


def _result(table: pa.Table, rows: list[dict[str, Any]], extras: pa.Schema, as_they_are: list[str]) -> pa.Table:
    schema = shard_schema(extras)
    built = pa.Table.from_pylist(rows, schema=pa.schema([field for field in schema if field.name not in as_they_are]))
    columns = [
        table[field.name].combine_chunks() if field.name in as_they_are else built[field.name] for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_shard(table: pa.Table, settings: WriteSettings, registry: Any) -> pa.Table:
    """The write stage as a function, for Ray tasks."""
    end_with_parent()
    return Write(settings, registry)(table)
