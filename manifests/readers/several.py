"""Several manifests, or the data files of one, read as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from manifests.readers.reader import ManifestReader
from manifests.schema import ManifestError, batch_schema, printable
from manifests.secrets import redacted


class SeveralReader:
    """Reads one manifest after the other; further columns that one of them lacks are null in its rows.

    readers: a name for messages, and the reader. A column has the same type in all of them, but for two cases: without
    any type (null) it takes that of the others, and of int64 and float64 it becomes float64, because JSON Lines tell
    them apart by the values that happen to be there. A whole number that float64 does not hold is refused.

    Raises ManifestError naming the column, both types and both manifests where they differ otherwise; ValueError if
    there is no reader.
    """

    def __init__(self, readers: Sequence[tuple[str, ManifestReader]]):
        if not readers:
            raise ValueError("no manifest to read")
        self._readers = list(readers)
        types: dict[str, tuple[pa.DataType, str]] = {}
        for name, reader in self._readers:
            for field in reader.schema_extras:
                kind, first = types.setdefault(field.name, (field.type, name))
                types[field.name] = _common(field.name, kind, first, field.type, name)
        self.schema_extras: pa.Schema = pa.schema([(column, kind) for column, (kind, _) in types.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of `batch_schema(schema_extras)`, in the order of the readers; of several, messages name theirs."""
        several = len(self._readers) > 1
        schema = batch_schema(self.schema_extras)
        for name, reader in self._readers:
            for batch in _named(name, reader.batches()):
                yield _fitted(batch, schema, name, several)


def _common(column: str, kind: pa.DataType, first: str, other: pa.DataType, name: str) -> tuple[pa.DataType, str]:
    """The type that holds both, and the manifest that it comes from."""
    if other == kind or pa.types.is_null(other):
        return kind, first
    if pa.types.is_null(kind):
        return other, name
    if {kind, other} == {pa.int64(), pa.float64()}:
        return pa.float64(), first if kind == pa.float64() else name
    raise ManifestError(
        f"column {column!r} is of type {kind} in {first} and of type {other} in {name}; "
        "cast or rename it in one of them, or audit them on their own"
    )


def _named(name: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; a failure to read them names the manifest."""
    try:
        yield from batches
    except ManifestError as error:
        if name in str(error):
            raise
        raise ManifestError(f"{name}: {error}") from error


def _fitted(batch: pa.RecordBatch, schema: pa.Schema, name: str, several: bool) -> pa.RecordBatch:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if several and columns["problem_message"].null_count < len(batch):
        texts = columns["problem_message"].to_pylist()
        shown = [None if text is None else printable(redacted(f"{name}: {text}")) for text in texts]
        columns["problem_message"] = pa.array(shown, pa.string())
    return pa.RecordBatch.from_arrays([_cast(columns, field, len(batch), name) for field in schema], schema=schema)


def _cast(columns: dict[str, pa.Array], field: pa.Field, rows: int, name: str) -> pa.Array:
    column = columns.get(field.name)
    if column is None or pa.types.is_null(column.type):
        return pa.nulls(rows, field.type)
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise ManifestError(
            f"{name}: column {field.name!r} holds whole numbers that {field.type}, its type in another manifest, does "
            f"not hold ({error}); write them as text in all of them"
        ) from error
