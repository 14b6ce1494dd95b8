"""Manifests as JSON Lines: one object a line, UTF-8, also gzipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from manifests.readers.batch import Problem, RowBuilder, malformed
from manifests.readers.json_types import ColumnType
from manifests.readers.lines import MAX_LINE, Line, lines, opened, replaced
from manifests.readers.options import AS_THEY_ARE, ReadOptions
from manifests.schema import KNOWN_COLUMNS, MAX_COLUMNS, NOT_UTF8, TYPED_EXTRAS, ManifestError

_FIXED = {field.name: field for field in (*KNOWN_COLUMNS, *TYPED_EXTRAS)}
MAX_KEY = 255  # characters
MAX_DEPTH = 100  # well below where Python's own parser and writer give up


class JsonlReader:
    """Reads a JSON Lines manifest, twice: the types of further columns are what all rows have in common.

    Raises ManifestError if no row has a uri, if there are more than 1,000 different keys, and if the keys do not fit
    those of the options.
    """

    def __init__(self, path: Path, options: ReadOptions = AS_THEY_ARE):
        self._path, self._options = path, options
        types: dict[str, ColumnType] = {}
        rows = 0
        for _, row, _ in self._rows():
            rows += 1
            for key, value in row.items():
                if key not in types:
                    types[key] = ColumnType()
                    if len(types) > MAX_COLUMNS:
                        raise ManifestError(
                            f"{path}: more than {MAX_COLUMNS} different keys; a key becomes a column, so "
                            "keys that differ from row to row belong into one nested object"
                        )
                if key not in _FIXED:
                    types[key].see(value)
        self._columns = self._named(list(types)) if rows else {}
        self._types = {key: kind for key, kind in types.items() if self._columns[key] not in _FIXED}
        extras = dict.fromkeys(name for name in self._columns.values() if name not in KNOWN_COLUMNS.names)
        self.schema_extras: pa.Schema = pa.schema(
            [_FIXED[name] if name in _FIXED else pa.field(name, self._types[name].arrow) for name in extras]
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of `batch_schema(schema_extras)`, in file order."""
        builder = RowBuilder(self._path, self.schema_extras, self._options.base)
        for line, row, problem in self._rows():
            for key in row:
                if key not in self._columns:
                    raise ManifestError(f"{self._path}: key {key!r} came while the file was read; copy the file first")
                if key in self._types:
                    row[key] = self._types[key].convert(row[key])
            values, wrong = self._shaped(row, line)
            builder.add(values, line.number, len(line.data), problem or wrong)
            if builder.full:
                yield builder.flush()
        if len(builder):
            yield builder.flush()

    def _named(self, keys: list[str]) -> dict[str, str]:
        """The column of every key of the file. Raises ManifestError if there is none for the uri."""
        columns = self._options.renamed(self._path, keys, "key")
        if "uri" not in columns.values():
            example = 'write one object a line, such as {"uri": "s3://..."}, or map the key that has it'
            raise ManifestError(f"{self._path}: no row has a uri; {example}")
        return columns

    def _shaped(self, row: dict[str, Any], line: Line) -> tuple[dict[str, Any], Problem | None]:
        """The row by columns instead of keys, and what is wrong with it. Values of further columns are converted."""
        if not self._options.columns:
            return row, None
        return {self._columns[key]: value for key, value in row.items()}, None

    def _rows(self) -> Iterator[tuple[Line, dict[str, Any], Problem | None]]:
        with opened(self._path) as stream:
            for line in lines(self._path, stream):
                if not line.blank:
                    yield line, *parse_line(line)


def first_object(path: Path) -> dict[str, Any]:
    """The first line that is an object and not empty; empty if there is none. Raises ManifestError as the reader."""
    with opened(path) as stream:
        return next((row for line in lines(path, stream) if (row := parse_line(line)[0])), {})


def parse_line(line: Line) -> tuple[dict[str, Any], Problem | None]:
    """The object of a line, empty if it is none, and what is wrong with the line."""
    problem = None
    try:
        text = line.data.decode()
    except UnicodeDecodeError:
        text = line.data.decode(errors="replace")
        problem = Problem(NOT_UTF8, f"line {line.number}: not UTF-8: {text[:200]}")
    if line.cut:
        return {}, malformed(line.number, f"longer than {MAX_LINE} bytes", text)
    try:
        row = json.loads(text.strip(), object_pairs_hook=_object, parse_constant=_no_constant)
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(row) > MAX_DEPTH:
            raise RecursionError
        if "\\u" in text and not _is_unicode(row):
            problem = Problem(NOT_UTF8, f"line {line.number}: half of a surrogate pair: {text[:200]}")
            row = json.loads(replaced(json.dumps(row, ensure_ascii=False)))
    except ValueError as error:
        return {}, malformed(line.number, f"not JSON ({error})", text)
    except RecursionError:
        return {}, malformed(line.number, "nested too deep", text)
    if not isinstance(row, dict):
        return {}, malformed(line.number, "not a JSON object", text)
    for key in [key for key in row if not key or len(key) > MAX_KEY or not key.isprintable()]:
        del row[key]
        problem = malformed(line.number, f"key {key[:40]!r} cannot name a column", text)
    return row, problem


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [v for values in inner for v in values]
    return depth


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _is_unicode(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
