"""Whether the manifest's further columns come through the commit as they are; asked before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.commit import database, fill
from jobs.audit.exits import USAGE, AuditError
from manifests.freeze import FrozenManifest

BATCH_ROWS = 16_384


def check_carried(manifest: str, frozen: FrozenManifest, parts: Path, work: Path) -> None:
    """Take the further columns through the steps of the commit: into DuckDB, back to Arrow, cast to their type.

    An empty column shows a type that DuckDB does not hold. Of types with an inside, or a form of their own, it depends
    on the values (a map with a key twice, a UUID), so theirs are taken. parts: folder of the frozen manifest; work: a
    folder for DuckDB. Raises AuditError naming the first column that is lost or changed.
    """
    if not len(frozen.extras):
        return
    with database(work) as connection:
        for field in frozen.extras:
            for batch in [_empty(field)] if _is_plain(field.type) else _column(frozen, parts, field.name):
                problem = _problem(connection, batch, field)
                if problem is not None:
                    raise AuditError(
                        USAGE,
                        f"{manifest}: column {field.name!r} of type {field.type} cannot be carried into the results "
                        f"({problem}): cast it, for instance to text, or drop it",
                    )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether every value of the type comes through if the type does. Most manifests have no other columns."""
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_timestamp, pa.types.is_null)
    texts = (pa.types.is_string, pa.types.is_large_string)
    return not isinstance(kind, pa.BaseExtensionType) and any(test(kind) for test in (*tests, *texts))


def _empty(field: pa.Field) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type)], names=[field.name])


def _column(frozen: FrozenManifest, parts: Path, name: str) -> Iterator[pa.RecordBatch]:
    for part in frozen.parts:
        with pq.ParquetFile(parts / part) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=[name])


def _problem(connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, field: pa.Field) -> str | None:
    """What becomes of a column on its way, in words; None if it stays what it is."""
    try:
        fill(connection, "carried", iter([batch]))
        held = connection.table("carried").to_arrow_reader(BATCH_ROWS).read_all()
        unit = getattr(held.schema.field(0).type, "unit", None)
        if pa.types.is_timestamp(field.type) and unit != field.type.unit:
            return f"its unit becomes {unit}"
        back = held.cast(pa.schema([field])).column(0).combine_chunks()
        if _same(back, batch.column(0)):
            return None
    except (duckdb.Error, pa.ArrowException, OverflowError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "its values change"


def _same(back: pa.Array, values: pa.Array) -> bool:
    # Arrow has no NaN equal to itself; written out, it is.
    return bool(back.equals(values)) or repr(back.to_pylist()) == repr(values.to_pylist())
