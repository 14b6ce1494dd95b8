"""Rows of manifests of any format, written as one Parquet manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.duplicates import find_duplicates
from manifests.filters import Filters, Selection, Taken
from manifests.readers import ManifestReader
from manifests.schema import KNOWN_COLUMNS, ManifestError, check_names

MEMORY = "512MB"


@dataclass
class Written:
    """rows: written; bad: rows with a problem, which no manifest can hold as they were; first_bad: what is wrong with
    the first; left_out: rows by the filter that left them out."""

    rows: int
    bad: int
    first_bad: str | None
    left_out: dict[str, int]


@dataclass
class _Listed:
    """names: a Parquet file of the good rows with row, image_id and per; bad, first_bad: as in Written."""

    names: Path
    bad: int = 0
    first_bad: str | None = None


def write_manifest(reader: ManifestReader, name: str, filters: Filters, output: Path, work: Path) -> Written:
    """Write the good rows of a manifest that the filters leave, each image once. The manifest is read twice.

    name: for messages; work: a folder of our own. Raises ManifestError if none is left, and for columns that no frozen
    manifest can have.
    """
    check_names(name, reader.schema_extras, frozenset())
    listed = _listed(reader, name, filters, None, work)
    again = {row for row, _ in find_duplicates(listed.names, work)}
    dropped = pa.array(sorted(again), pa.int64())
    selection = Selection(filters, reader.schema_extras, name, work)
    taken = selection(reader.batches())
    written = _write(
        (_some(one, pc.invert(pc.is_in(one.row, dropped))) for one in taken) if again else taken,
        reader.schema_extras,
        output,
    )
    if again and written.first_bad is None:
        written.first_bad = f"row {min(again)} lists the same image as an earlier one"
    written.bad += len(again)
    if not written.rows and not written.bad:
        raise selection.none_left(name)
    written.left_out = selection.left_out
    return written


def write_sample(
    reader: ManifestReader, name: str, filters: Filters, rows: int, per: str | None, output: Path, work: Path
) -> Written:
    """Write so many of the good rows that the filters leave, chosen by the names of their images.

    per: column of which each value gets so many. The manifest is read twice. Raises ManifestError as `write_manifest`.
    """
    check_names(name, reader.schema_extras, frozenset())
    listed = _listed(reader, name, filters, per, work)
    chosen = _chosen(listed.names, rows, work)
    if not len(chosen):
        raise ManifestError(f"{name}: no good row is left to take; see line-audit manifest inspect")
    again = Selection(filters, reader.schema_extras, name, work)
    some = (_some(one, pc.is_in(one.row, chosen)) for one in again(reader.batches()))
    written = _write(some, reader.schema_extras, output)
    written.bad, written.first_bad, written.left_out = listed.bad, listed.first_bad, again.left_out
    return written


def _some(taken: Taken, mask: pa.Array) -> Taken:
    return Taken(*(part.filter(mask) for part in taken))


def _write(taken: Iterator[Taken], extras: pa.Schema, output: Path) -> Written:
    schema = pa.schema([*KNOWN_COLUMNS, *extras])
    written = Written(0, 0, None, {})
    with pq.ParquetWriter(output, schema, compression="zstd") as writer:
        for one in taken:
            good = pc.is_null(one.batch["problem_code"])
            bad = one.batch["problem_message"].filter(pc.invert(good))
            written.bad += len(bad)
            if len(bad) and written.first_bad is None:
                written.first_bad = bad[0].as_py()
            writer.write_batch(one.batch.filter(good).select(schema.names))
            written.rows += len(one.batch) - len(bad)
    return written


def _listed(reader: ManifestReader, name: str, filters: Filters, per: str | None, work: Path) -> _Listed:
    """The good rows' numbers and names, with the value of a column."""
    selection = Selection(filters, reader.schema_extras, name, work)
    schema = pa.schema([("row", pa.int64()), ("image_id", pa.string()), ("per", pa.string())])
    listed = _Listed(work / "names.parquet")
    with pq.ParquetWriter(listed.names, schema, compression="lz4") as writer:
        for taken in selection(reader.batches()):
            by = pa.nulls(len(taken.batch), pa.string()) if per is None else taken.batch[per]
            columns = pa.RecordBatch.from_arrays([taken.row, taken.name, by], schema=schema)
            good = pc.is_null(taken.batch["problem_code"])
            writer.write_batch(columns.filter(good))
            bad = taken.batch["problem_message"].filter(pc.invert(good))
            listed.bad += len(bad)
            if len(bad) and listed.first_bad is None:
                listed.first_bad = bad[0].as_py()
    return listed


def _chosen(names: Path, rows: int, work: Path) -> pa.Array:
    """Numbers of the rows to take, int64."""
    # Of an image that is listed twice the first row; names are as good as random, and stay what they are.
    query = """
        SELECT row FROM (
            SELECT image_id, min(row) AS row, min_by(per, row) AS per FROM read_parquet($path) GROUP BY image_id
        )
        QUALIFY row_number() OVER (PARTITION BY per ORDER BY image_id) <= $rows
        ORDER BY row
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": 2,
        "temp_directory": str(work / "spill"),
    }
    with duckdb.connect(config=config) as connection:
        found = connection.sql(query, params={"path": str(names), "rows": rows}).to_arrow_table()
    return found["row"].combine_chunks()
