"""From the shards of a run to one published table. Readers see it whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.exits import FAILED, AuditError
from jobs.audit.record import FileDigest, Published, RunFolder, RunRecord
from jobs.audit.results import file_metadata, result_schema
from jobs.audit.write import shard_name
from jobs.storage import join, read_bytes, scratch, upload
from manifests.freeze import FrozenManifest

MEMORY_LIMIT = "1GB"
BATCH_ROWS = 50_000
DIGESTS_AT_ONCE = 4096
DIGESTS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


def commit(folder: RunFolder, record: RunRecord, frozen: FrozenManifest) -> dict[str, Any]:
    """Check that every manifest row is there exactly once, sort, publish by one atomic write; returns the counts.

    Sorted by category, line, and then as in the manifest. The digests of what was published go into ``record``, which
    is the caller's to save. Raises AuditError if the run does not balance.
    """
    schema = result_schema(frozen.extras)
    metadata = file_metadata(record.run_id, record.fingerprint, record.parts["bundle"])
    with scratch() as local:
        connection = database(local)
        with DigestList(local / "digests") as digests:
            batches = pa.RecordBatchReader.from_batches(
                pa.schema([*schema, pa.field("row", pa.int64())]), _batches(folder, frozen, schema, digests)
            )
            connection.register("batches", batches)
            connection.execute("CREATE TABLE rows AS SELECT * FROM batches")
            connection.unregister("batches")
        _check_balance(connection, record, frozen)
        counts = count_rows(connection)
        target = local / "published"
        ordered = connection.sql(
            "SELECT * EXCLUDE (row) FROM rows ORDER BY category NULLS LAST, line NULLS LAST, row"
        ).to_arrow_reader(BATCH_ROWS)
        with pq.ParquetWriter(target, schema, compression="zstd", write_statistics=True) as writer:
            for batch in ordered:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            writer.add_key_value_metadata(metadata)
        connection.close()
        upload(local / "digests", folder.digests)
        upload(target, folder.results)
        record.published = Published(table=FileDigest.of(target), digests=FileDigest.of(local / "digests"))
    return counts


def database(folder: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB of our own with bounded memory; what does not fit goes into files in ``folder``."""
    connection = duckdb.connect(str(folder / "rows.duckdb"))
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


class DigestList:
    """Writes ``digests.parquet``: name, size in bytes and SHA-256 of files, in the order in which they are added."""

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
        if len(self._held) == DIGESTS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._held, schema=DIGESTS))
        self._held = []


def _batches(
    folder: RunFolder, frozen: FrozenManifest, schema: pa.Schema, digests: DigestList
) -> Iterator[pa.RecordBatch]:
    columns = [*schema.names, "row"]
    for shard in frozen.shards:
        name = shard_name(shard.index)
        data = read_bytes(join(folder.shards, name))
        digests.add(name, data)
        table = pq.read_table(pa.BufferReader(data), columns=columns)
        yield from table.select(columns).cast(pa.schema([*schema, pa.field("row", pa.int64())])).to_batches()


def _check_balance(connection: duckdb.DuckDBPyConnection, record: RunRecord, frozen: FrozenManifest) -> None:
    found = connection.execute(
        "SELECT count(*), count(DISTINCT row), coalesce(min(row), 0), coalesce(max(row), -1) FROM rows"
    ).fetchone()
    if found != (frozen.rows, frozen.rows, 0, frozen.rows - 1):
        raise AuditError(
            FAILED,
            f"run {record.run_id} does not balance: {frozen.rows} manifest rows, but the shards hold (rows, distinct, "
            f"first, last) = {found}; nothing was published",
        )


def count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The counts of run.json, from result rows in the table or view ``rows``."""

    def pairs(sql: str) -> dict[str, int]:
        return {str(key): int(count) for key, count in connection.execute(sql).fetchall()}

    scored = "category IS NOT NULL AND status = 'scored'"
    return {
        "rows": sum(pairs("SELECT 'rows', count(*) FROM rows").values()),
        "status": pairs("SELECT status, count(*) FROM rows GROUP BY 1 ORDER BY 1"),
        "decisions": pairs("SELECT decision, count(*) FROM rows GROUP BY 1 ORDER BY 1"),
        "failed_by_code": pairs(
            "SELECT error_stage || '/' || error_code, count(*) FROM rows WHERE status = 'failed' GROUP BY 1 ORDER BY 1"
        ),
        "scored_by_category": pairs(f"SELECT category, count(*) FROM rows WHERE {scored} GROUP BY 1 ORDER BY 1"),
        "anomalous_by_category": pairs(
            "SELECT category, count(*) FROM rows WHERE decision = 'anomalous' GROUP BY 1 ORDER BY 1"
        ),
        "review_by_category": pairs(
            "SELECT coalesce(category, declared_category), count(*) FROM rows "
            "WHERE decision = 'review' GROUP BY 1 ORDER BY 1"
        ),
        "render_errors": sum(pairs("SELECT 'n', count(*) FROM rows WHERE render_error IS NOT NULL").values()),
        "near_threshold": sum(pairs("SELECT 'n', count(*) FROM rows WHERE abs(margin - 1) <= 0.03").values()),
    }
