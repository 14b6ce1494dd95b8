"""From the shards of a run to one published table. Readers see it whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.exits import FAILED, AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.results import file_metadata, result_schema
from jobs.audit.write import shard_name
from jobs.storage import join, reading, scratch, upload
from manifests.freeze import FrozenManifest

MEMORY_LIMIT = "1GB"
BATCH_ROWS = 50_000


def commit(folder: RunFolder, record: RunRecord, frozen: FrozenManifest) -> dict[str, Any]:
    """Check that every manifest row is there exactly once, sort, publish by one atomic write; returns the counts.

    Sorted by category, line, and then as in the manifest. Raises AuditError if the run does not balance.
    """
    schema = result_schema(frozen.extras)
    metadata = file_metadata(record.run_id, record.fingerprint, record.parts["bundle"])
    with scratch() as local:
        connection = duckdb.connect(str(local / "sort.duckdb"))
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        connection.execute(f"SET temp_directory = '{local / 'spill'}'")
        connection.execute("SET TimeZone = 'UTC'")
        batches = pa.RecordBatchReader.from_batches(
            pa.schema([*schema, pa.field("row", pa.int64())]), _batches(folder, frozen, schema)
        )
        connection.register("batches", batches)
        connection.execute("CREATE TABLE rows AS SELECT * FROM batches")
        connection.unregister("batches")
        _check_balance(connection, record, frozen)
        counts = _counts(connection)
        target = local / "published"
        ordered = connection.sql(
            "SELECT * EXCLUDE (row) FROM rows ORDER BY category NULLS LAST, line NULLS LAST, row"
        ).to_arrow_reader(BATCH_ROWS)
        with pq.ParquetWriter(target, schema, compression="zstd", write_statistics=True) as writer:
            for batch in ordered:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            writer.add_key_value_metadata(metadata)
        connection.close()
        upload(target, folder.results)
    return counts


def _batches(folder: RunFolder, frozen: FrozenManifest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    columns = [*schema.names, "row"]
    for shard in frozen.shards:
        uri = join(folder.shards, shard_name(shard.index))
        with reading(uri) as file:
            table = pq.read_table(file, columns=columns)
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


def _counts(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
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
