"""Rows of manifests of any format, written as one Parquet manifest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.database import database
from manifests.duplicates import find_duplicates
from manifests.filters import Filters, Selection
from manifests.readers import ManifestReader
from manifests.schema import KNOWN_COLUMNS, ManifestError, check_names


@dataclass(frozen=True)
class Written:
    """rows: written; bad: rows with a problem, which no manifest can hold as they were; first_bad: what is wrong with
    the first; left_out: rows by the filter that left them out; bytes: of the images together, None if not all are
    known."""

    rows: int
    bad: int
    first_bad: str | None
    left_out: dict[str, int]
    bytes: int | None


@dataclass
class _Listed:
    """names: a Parquet file of the good rows with row, image_id and per; bad, first_bad, left_out: as in Written;
    nothing: the error for a manifest of which no row is left, if that is so."""

    names: Path
    left_out: dict[str, int]
    bad: int = 0
    first_bad: str | None = None
    nothing: ManifestError | None = None


def write_manifest(reader: ManifestReader, name: str, filters: Filters, output: Path, work: Path) -> Written:
    """Write the good rows of a manifest that the filters leave, each image once. The manifest is read twice.

    name: for messages; work: a folder of our own. Raises ManifestError if none is left, and for columns that no frozen
    manifest can have.
    """
    listed = _listed(reader, name, filters, None, work)
    if listed.nothing is not None:
        raise listed.nothing
    again = [row for row, _ in find_duplicates(listed.names, work)]
    if again:
        listed.bad += len(again)
        listed.first_bad = listed.first_bad or f"row {again[0]} lists the same image as an earlier one"
    dropped = pa.array(again, pa.int64())
    return _write(reader, name, filters, lambda rows: pc.invert(pc.is_in(rows, dropped)), listed, output, work)


def write_sample(
    reader: ManifestReader, name: str, filters: Filters, rows: int, per: str | None, output: Path, work: Path
) -> Written:
    """Write so many of the good rows that the filters leave, chosen by the names of their images.

    per: column of which each value gets so many. The manifest is read twice. Raises ManifestError as `write_manifest`.
    """
    listed = _listed(reader, name, filters, per, work)
    chosen = _chosen(listed.names, rows, work)
    if not len(chosen):
        raise ManifestError(f"{name}: no good row is left to take; see line-audit manifest inspect")
    return _write(reader, name, filters, lambda rows: pc.is_in(rows, chosen), listed, output, work)


def _listed(reader: ManifestReader, name: str, filters: Filters, per: str | None, work: Path) -> _Listed:
    """The good rows' numbers and names, with the value of a column."""
    check_names(name, reader.schema_extras, frozenset())
    schema = pa.schema([("row", pa.int64()), ("image_id", pa.string()), ("per", pa.string())])
    with closing(Selection(filters, reader.schema_extras, name, work)) as selection:
        listed, rows = _Listed(work / "names.parquet", selection.left_out), 0
        with pq.ParquetWriter(listed.names, schema, compression="lz4") as writer:
            for taken in selection(reader.batches()):
                by = pa.nulls(len(taken.batch), pa.string()) if per is None else taken.batch[per]
                columns = pa.RecordBatch.from_arrays([taken.row, taken.name, by], schema=schema)
                good = pc.is_null(taken.batch["problem_code"])
                writer.write_batch(columns.filter(good))
                bad = taken.batch["problem_message"].filter(pc.invert(good))
                rows += len(taken.batch)
                listed.bad += len(bad)
                if len(bad) and listed.first_bad is None:
                    listed.first_bad = bad[0].as_py()
    if not rows:
        listed.nothing = selection.none_left(name)
    return listed


def _write(
    reader: ManifestReader,
    name: str,
    filters: Filters,
    wanted: Callable[[pa.Array], pa.Array],
    listed: _Listed,
    output: Path,
    work: Path,
) -> Written:
    """Write the good rows whose numbers are wanted."""
    schema = pa.schema([*KNOWN_COLUMNS, *reader.schema_extras])
    rows, size = 0, 0 if "size" in schema.names else None
    with (
        closing(Selection(filters, reader.schema_extras, name, work)) as selection,
        pq.ParquetWriter(output, schema, compression="zstd") as writer,
    ):
        for taken in selection(reader.batches()):
            good = pc.and_(pc.is_null(taken.batch["problem_code"]), wanted(taken.row))
            batch = taken.batch.filter(good).select(schema.names)
            writer.write_batch(batch)
            rows += len(batch)
            if size is not None:
                size = None if batch["size"].null_count else size + (pc.sum(batch["size"]).as_py() or 0)
    return Written(rows, listed.bad, listed.first_bad, listed.left_out, size)


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
    with database(work, "sample") as connection:
        found = connection.sql(query, params={"path": str(names), "rows": rows}).to_arrow_table()
    return found["row"].combine_chunks()
