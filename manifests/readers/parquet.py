"""Manifests as Parquet: known columns are cast to their types, all others keep theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.readers.batch import MAX_BYTES, MAX_ROWS, Problem, assemble
from manifests.readers.options import AS_THEY_ARE, ReadOptions
from manifests.readers.values import PARSERS, BadValue
from manifests.schema import KNOWN_COLUMNS, MALFORMED_VALUE, NOT_UTF8, TIME, TYPED_EXTRAS, ManifestError

_FIXED = {field.name: field.type for field in (*KNOWN_COLUMNS, *TYPED_EXTRAS)}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Years 1 to 9999, which is what Python's datetime holds; later readers would fall over anything else.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799


class ParquetReader:
    """Reads a Parquet manifest. A dictionary-encoded column is decoded.

    Raises ManifestError if the file is not whole, has no uri column, a name twice, columns that do not fit those of
    the options, or a known column of a type that cannot be cast (a list where a line should be).
    """

    def __init__(self, path: Path, options: ReadOptions = AS_THEY_ARE):
        self._path, self._base = path, options.base
        with self._guarded():
            # buffer_size: read pages as they are needed, not whole column chunks.
            self._file = pq.ParquetFile(path, buffer_size=2**20)
            schema = self._file.schema_arrow
        if len(set(schema.names)) != len(schema.names):
            raise ManifestError(f"{path}: a column name comes twice ({', '.join(schema.names)[:300]}); rename one")
        self._names = list(options.renamed(path, schema.names).values())
        if "uri" not in self._names:
            found = ", ".join(schema.names)[:300]
            raise ManifestError(
                f"{path}: no uri column ({found}); name the column with the images' addresses uri or map it"
            )
        types = dict(zip(self._names, map(_plain, schema.types), strict=True))
        for field, name in zip(schema, self._names, strict=True):
            if name in _FIXED and not _castable(name, types[name]):
                wanted = "text" if name in ("uri", "labels") else _FIXED[name]
                raise ManifestError(
                    f"{path}: column {field.name} is of type {field.type} and cannot be cast to {wanted}; "
                    "cast or rename it"
                )
        self.schema_extras: pa.Schema = pa.schema(
            [pa.field(n, _FIXED.get(n, kind)) for n, kind in types.items() if n not in KNOWN_COLUMNS.names]
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of `batch_schema(schema_extras)`, in file order."""
        start = 0
        found = self._file.iter_batches(batch_size=self._batch_rows())
        while True:
            with self._guarded():
                batch = next(found, None)
            if batch is None:
                return
            yield self._cast(batch, start)
            start += len(batch)

    def _batch_rows(self) -> int:
        footer = self._file.metadata
        size = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        return int(min(MAX_ROWS, max(256, MAX_BYTES * footer.num_rows // max(size, 1))))

    def _cast(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        whole: dict[int, Problem] = {}
        values: dict[int, Problem] = {}
        columns: dict[str, pa.Array] = {}
        for name, column in zip(self._names, batch.columns, strict=True):
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            column, broken = _decoded(column) if name in _FIXED and _is_bytes(column.type) else _repair(column)
            for i in broken:
                whole.setdefault(i, Problem(NOT_UTF8, f"row {start + i}: not UTF-8 in column {name}"))
            if name in _FIXED:
                column, bad = typed(name, column)
                for i, reason in bad.items():
                    values.setdefault(i, Problem(MALFORMED_VALUE, f"row {start + i}: column {name}: {reason}"))
            columns[name] = column
        return assemble(
            columns, self.schema_extras, len(batch), whole, values, lambda i: f"row {start + i}", self._base
        )

    def _guarded(self) -> _Guard:
        return _Guard(self._path)


class _Guard:
    """Turns what Arrow says of a damaged file into a ManifestError that names it."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError | ManifestError):
            return
        if isinstance(error, pa.ArrowException | OSError):
            raise ManifestError(f"{self._path}: not a whole Parquet file ({error}); write or copy it again") from error


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    fixed = pa.types.is_fixed_size_binary(kind) and not isinstance(kind, pa.BaseExtensionType)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or fixed)


def _castable(name: str, kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if _is_text(kind) or _is_bytes(kind) or pa.types.is_null(kind):
        return True
    if name == "uri":
        return False
    if name == "labels":
        return _is_json(kind)
    if _FIXED[name] == TIME:
        return bool(is_number or pa.types.is_timestamp(kind) or pa.types.is_date(kind))
    return bool(is_number)


def _is_json(kind: pa.DataType) -> bool:
    """Whether every value of the type has one meaning in JSON."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        names = [field.name for field in kind]
        return len(set(names)) == len(names) and all(_is_json(field.type) for field in kind)
    number = types.is_integer(kind) or types.is_floating(kind)
    return bool(number or _is_text(kind) or types.is_boolean(kind) or types.is_null(kind))


def _repair(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """The column with valid text, and the rows where it was not: U+FFFD there, null if nested."""
    # Arrow does not check the text that it reads from Parquet; making Python strings of it would fail much
    # later.
    if not (_is_text(column.type) or pa.types.is_nested(column.type)) or _is_valid(column):
        return column, []
    if _is_text(column.type):
        texts, broken = _decoded(column.cast(pa.large_binary()))
        return texts.cast(column.type), broken
    broken = [i for i in range(len(column)) if not _is_valid(column.take(pa.array([i])))]
    lost = set(broken)
    return column.take(pa.array([None if i in lost else i for i in range(len(column))], pa.int64())), broken


def _decoded(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """Bytes as text, and the rows where they are not UTF-8."""
    texts: list[str | None] = []
    broken = []
    for i, value in enumerate(column.to_pylist()):
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            texts.append(value.decode(errors="replace"))
            broken.append(i)
    return pa.array(texts, pa.string()), broken


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def typed(name: str, column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """The column with its fixed type, and what is wrong with the values that it cannot hold (null then)."""
    wanted, kind = _FIXED[name], column.type
    if pa.types.is_timestamp(kind):
        return _timestamps(column)
    if pa.types.is_date(kind):
        return _timestamps(column.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms")))
    if wanted == kind or (wanted == pa.string() and (name != "labels" or _is_text(kind))):
        return column.cast(wanted), {}
    values: list[Any] = []
    bad: dict[int, str] = {}
    for i, value in enumerate(column.to_pylist()):
        try:
            values.append(PARSERS[name](value))
        except BadValue as error:
            values.append(None)
            bad[i] = str(error)
    return pa.array(values, wanted), bad


def _timestamps(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """To microseconds UTC; times without a zone are UTC; nanoseconds are cut."""
    per_second = _PER_SECOND[column.type.unit]
    null = np.asarray(column.is_null())
    raw = np.asarray(column.cast(pa.int64()).fill_null(0))
    seconds = raw // per_second
    out = ~null & ((seconds < _FIRST) | (seconds > _LAST))
    rest = (raw % per_second) * 10**6 // per_second
    micros = np.where(out | null, 0, seconds) * 10**6 + rest
    bad = {int(i): f"{raw[i]} {column.type.unit} since 1970 is out of range for a time" for i in np.flatnonzero(out)}
    return pa.array(micros, pa.int64(), mask=out | null).cast(TIME), bad
