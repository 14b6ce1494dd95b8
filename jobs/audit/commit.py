"""From the shards of a run to one published table. Readers see it whole or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.digests import DigestList
from jobs.audit.exits import FAILED, USAGE, AuditError
from jobs.audit.record import FileDigest, Published, RunFolder, RunRecord, shard_name
from jobs.audit.results import DAMAGE, DUPLICATE_SQL, RESERVED, as_current, file_metadata, result_schema
from jobs.audit.review import write_queue
from jobs.storage import delete, read_bytes, scratch, upload
from jobs.uris import below, join
from manifests.freeze import FrozenManifest

MEMORY_LIMIT = "1GB"
BATCH_ROWS = 50_000
_log = logging.getLogger(__name__)

Redecided = Callable[[pa.Table], pa.Table]


def commit(
    folder: RunFolder,
    record: RunRecord,
    frozen: FrozenManifest,
    retries: Sequence[tuple[RunFolder, FrozenManifest]] = (),
    *,
    ours: Callable[[], None],
    retrying: bool = False,
    redecide: Redecided | None = None,
    version: int = 1,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Check that every manifest row is there exactly once, sort, publish by one atomic write; returns the counts.

    Sorted by line, category, and then as in the manifest: who asks for one line reads a part of the table. retries: in
    turn, whose rows replace those of the same place in the manifest. ours: called right before the publication, raises
    if the run is no longer ours. retrying: the last of the retries is what is committed now, and not the run itself.
    redecide: makes of a shard's rows, error_map included, what is published; None if they are published as they are.
    version: of the results. kept: a file of this machine that is to be the published table too, for who reads it next.
    The digests of what was published go into ``record``, which is the caller's to save. Raises
    AuditError if the run does not balance, or shards are damaged: those that the same command can score again are
    removed first.
    """
    taken = sorted(RESERVED & set(frozen.extras.names))
    if taken:  # frozen when the results had no such column
        raise AuditError(
            USAGE,
            f"the manifest of run {record.run_id} has columns that the results have by now: {', '.join(taken)}; "
            "finish it with the version of the code that began it",
        )
    damaged = Damaged(ours)
    schema = result_schema(frozen.extras)
    metadata = file_metadata(record.run_id, record.fingerprint, record.parts["bundle"])
    with scratch() as local:
        connection = database(local)
        with DigestList(local / "digests") as digests:
            rows = _batches(folder, frozen, schema, digests, damaged, redecide)
            fill(connection, "rows", rows)
            damaged.tell(removed=not retrying)
            for number, (again, frozen_again) in enumerate(retries, 1):
                fill(connection, "again", _batches(again, frozen_again, schema, digests, damaged, redecide))
                damaged.tell(removed=retrying and number == len(retries))
                # A shard of a retry has a number among the retry's own.
                connection.execute("UPDATE again SET shard = rows.shard FROM rows WHERE again.row = rows.row")
                connection.execute("DELETE FROM rows WHERE row IN (SELECT row FROM again)")
                connection.execute("INSERT INTO rows SELECT * FROM again")
        _check_balance(connection, record, frozen)
        counts = count_rows(connection)
        target = local / "published"
        ordered = connection.sql(
            "SELECT * EXCLUDE (row) FROM rows ORDER BY line NULLS LAST, category NULLS LAST, row"
        ).to_arrow_reader(BATCH_ROWS)
        with pq.ParquetWriter(target, schema, compression="zstd", write_statistics=True) as writer:
            for batch in ordered:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            writer.add_key_value_metadata(metadata)
        write_queue(connection, record.run_id, version, local / "queue.csv")
        connection.close()
        ours()
        upload(local / "digests", folder.digests)
        upload(local / "queue.csv", folder.queue(version))
        upload(target, folder.results)
        record.published = Published(table=FileDigest.of(target), digests=FileDigest.of(local / "digests"))
        if kept is not None:
            shutil.move(target, kept)
        told = {"version": version, "rows": counts["rows"], "decisions": counts["decisions"]}
        _log.info("results published", extra=told | {"results": folder.results})
    return counts


def database(folder: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB of our own with bounded memory; what does not fit goes into files in ``folder``."""
    connection = duckdb.connect(str(folder / "rows.duckdb"))
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def fill(connection: duckdb.DuckDBPyConnection, table: str, batches: Iterator[pa.RecordBatch]) -> None:
    """Make a table of batches, of which there is one at least. Raises duckdb.Error, and what ``batches`` raises."""
    first = next(batches)  # no manifest, and no retry, is empty
    raised: list[Exception] = []

    def noted() -> Iterator[pa.RecordBatch]:
        try:
            yield from chain([first], batches)
        except Exception as error:  # DuckDB would raise one of its own, with this one as its text
            raised.append(error)
            raise

    connection.register("batches", pa.RecordBatchReader.from_batches(first.schema, noted()))
    try:
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM batches")
    except duckdb.Error:
        if raised:
            raise raised[0] from None
        raise
    finally:
        connection.unregister("batches")


class Damaged:
    """Shards whose rows cannot be read, by URI, with what Arrow says. ours: raises if the run is no longer ours."""

    def __init__(self, ours: Callable[[], None]):
        self.ours, self.found = ours, dict[str, str]()

    def tell(self, *, removed: bool) -> None:
        """Raises AuditError if there are any. removed: remove them before, so that they are scored again."""
        if not self.found:
            return
        remedy = "put copies of the files there; the results that are published stay as they are"
        if removed:
            self.ours()
            for uri in self.found:
                delete(uri)
            remedy = "the files were removed, and the same command scores their rows again"
        (uri, said), more = next(iter(self.found.items())), len(self.found) - 1
        others = f", and {more} more" if more else ""
        raise AuditError(FAILED, f"{uri}: the shard is damaged ({said}){others}; {remedy}")


def _batches(
    folder: RunFolder,
    frozen: FrozenManifest,
    schema: pa.Schema,
    digests: DigestList,
    damaged: Damaged,
    redecide: Redecided | None,
) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([*schema, pa.field("row", pa.int64())])
    yield pa.RecordBatch.from_pylist([], schema=schema)  # all that there is if every shard is damaged
    columns = schema.names if redecide is None else [*schema.names, "error_map"]
    for shard in frozen.shards:
        uri = join(folder.shards, shard_name(shard.index))
        data = read_bytes(uri)
        digests.add(below(folder.uri, uri), data)
        try:
            with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
                table = as_current(file.read(columns))
            rows = table.select(schema.names).cast(schema)
        except MemoryError:  # Arrow's is one of DAMAGE too, and says nothing of the file
            raise
        except DAMAGE as error:
            damaged.found[uri] = str(error)
        else:
            if redecide is not None:
                rows = redecide(table).select(schema.names).cast(schema)
            yield from rows.to_batches()


def _check_balance(connection: duckdb.DuckDBPyConnection, record: RunRecord, frozen: FrozenManifest) -> None:
    # What filters left out are gaps, so the last place and the number of rows do not tell which ones there are.
    places = frozen.places or (0, frozen.rows - 1, frozen.rows * (frozen.rows - 1) // 2)
    found = connection.execute(
        "SELECT count(*), count(DISTINCT row), coalesce(min(row), 0), coalesce(max(row), -1), coalesce(sum(row), 0) "
        "FROM rows"
    ).fetchone()
    planned = (frozen.rows, frozen.rows, *places)
    if found != planned:
        raise AuditError(
            FAILED,
            f"run {record.run_id} does not balance: {frozen.rows} manifest rows, but the shards hold (rows, distinct, "
            f"first, last, sum of places) = {found} and not {planned}; nothing was published",
        )


def count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The counts of run.json, from result rows in the table or view ``rows``."""

    def pairs(sql: str) -> dict[str, int]:
        return {str(key): int(count) for key, count in connection.execute(sql).fetchall()}

    # A row that failed before it was routed belongs to the category that the manifest says.
    named = "coalesce(declared_category, category, '')"
    scored = "category IS NOT NULL AND status = 'scored'"
    return {
        "rows": sum(pairs("SELECT 'rows', count(*) FROM rows").values()),
        "status": pairs("SELECT status, count(*) FROM rows GROUP BY 1 ORDER BY 1"),
        "decisions": pairs("SELECT decision, count(*) FROM rows GROUP BY 1 ORDER BY 1"),
        "failed_by_code": pairs(
            "SELECT error_stage || '/' || error_code, count(*) FROM rows WHERE status = 'failed' GROUP BY 1 ORDER BY 1"
        ),
        "rows_by_category": pairs(f"SELECT {named}, count(*) FROM rows GROUP BY 1 ORDER BY 1"),
        "budgeted_by_category": pairs(
            f"SELECT {named}, count(*) FROM rows WHERE NOT {DUPLICATE_SQL} GROUP BY 1 ORDER BY 1"
        ),
        "failed_by_category": pairs(
            f"SELECT {named}, count(*) FROM rows WHERE status = 'failed' AND NOT {DUPLICATE_SQL} GROUP BY 1 ORDER BY 1"
        ),
        "scored_by_category": pairs(f"SELECT category, count(*) FROM rows WHERE {scored} GROUP BY 1 ORDER BY 1"),
        "anomalous_by_category": pairs(
            "SELECT category, count(*) FROM rows WHERE decision = 'anomalous' GROUP BY 1 ORDER BY 1"
        ),
        "review_by_category": pairs(
            "SELECT coalesce(category, declared_category, ''), count(*) FROM rows "
            "WHERE decision = 'review' GROUP BY 1 ORDER BY 1"
        ),
        "render_errors": sum(pairs("SELECT 'n', count(*) FROM rows WHERE render_error IS NOT NULL").values()),
        "near_threshold": sum(pairs("SELECT 'n', count(*) FROM rows WHERE abs(margin - 1) <= 0.03").values()),
    }
