"""From columns, or from single rows, to the batches that every reader yields; the uri is judged here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.readers.values import PARSERS, BadValue
from manifests.schema import (
    CONTROL_CHARACTER,
    CREDENTIALS_IN_URI,
    EMPTY_URI,
    KNOWN_COLUMNS,
    MALFORMED_ROW,
    MALFORMED_VALUE,
    MAX_URI,
    URI_TOO_LONG,
    ManifestError,
    batch_schema,
    printable,
)
from manifests.secrets import SUSPECT, redacted, without_secrets

SCHEME = "[A-Za-z0-9+.-]+://"
MAX_ROWS = 65_536
MAX_BYTES = 32 * 2**20  # of text in one batch, so that long rows do not cost memory either


class Problem(NamedTuple):
    """What is wrong with a row: one of `manifests.schema.PROBLEM_CODES`, and a sentence: what and where."""

    code: str
    message: str


def assemble(
    columns: Mapping[str, pa.Array],
    extras: pa.Schema,
    rows: int,
    row_problems: Mapping[int, Problem],
    value_problems: Mapping[int, Problem],
    where: Callable[[int], str],
    base: str | None = None,
) -> pa.RecordBatch:
    """A batch of `batch_schema(extras)` from its columns; a known column that is not given is null.

    A row has one problem: of the row as a whole, else of its uri, else of another value. where(i) says where in the
    file row i of the batch is, such as "line 7". base: what uris that are neither absolute paths nor have a scheme are
    put behind.
    """
    columns = dict(columns)
    uri, uri_problems = _without_secrets(_based(columns["uri"], base), where)
    columns["uri"] = uri
    uri_problems |= _judge(uri, where)
    too_long = pc.greater(pc.utf8_length(uri), MAX_URI)
    if pc.any(too_long).as_py():
        columns["uri"] = pc.if_else(too_long, pc.utf8_slice_codeunits(uri, 0, MAX_URI), uri)
    codes: list[str | None] = [None] * rows
    messages: list[str | None] = [None] * rows
    for found in (value_problems, uri_problems, row_problems):  # the later wins
        for i, problem in found.items():
            codes[i], messages[i] = problem.code, printable(redacted(problem.message))
    columns["problem_code"] = pa.array(codes, pa.string())
    columns["problem_message"] = pa.array(messages, pa.string())
    schema = batch_schema(extras)
    arrays = [columns[f.name] if f.name in columns else pa.nulls(rows, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _based(uri: pa.Array, base: str | None) -> pa.Array:
    # What leads out of the base with ".." is refused where all uris are held against what is allowed.
    if base is None:
        return uri
    # A uri of white space only stays: it is none, and must be reported as that.
    stays = pc.or_(pc.match_substring_regex(uri, f"^(/|{SCHEME})"), _blank(uri))
    return pc.if_else(stays, uri, pc.binary_join_element_wise(pa.scalar(base.rstrip("/"), uri.type), uri, "/"))


def _without_secrets(uri: pa.Array, where: Callable[[int], str]) -> tuple[pa.Array, dict[int, Problem]]:
    # The uri is written into every table from here on, and its readers need no credentials of other people.
    suspects = _rows(pc.match_substring_regex(uri, SUSPECT, ignore_case=True))
    clean = {i: without_secrets(uri[i].as_py()) for i in suspects}
    clean = {i: text for i, text in clean.items() if text != uri[i].as_py()}
    if not clean:
        return uri, {}
    mask = np.zeros(len(uri), bool)
    mask[list(clean)] = True
    message = "credentials in the uri, which are struck out here; give them to the job's environment"
    problems = {i: Problem(CREDENTIALS_IN_URI, f"{where(i)}: {message}") for i in clean}
    return pc.replace_with_mask(uri, pa.array(mask), pa.array(list(clean.values()), uri.type)), problems


def _judge(uri: pa.Array, where: Callable[[int], str]) -> dict[int, Problem]:
    found: dict[int, Problem] = {}
    length = pc.utf8_length(uri)
    for i in _rows(pc.match_substring_regex(uri, r"[\x00-\x1f\x7f]")):
        found[i] = Problem(CONTROL_CHARACTER, f"{where(i)}: control character in the uri {uri[i].as_py()[:200]!r}")
    for i in _rows(pc.greater(length, MAX_URI)):
        message = f"{where(i)}: uri of {length[i].as_py()} characters, at most {MAX_URI} are allowed"
        found[i] = Problem(URI_TOO_LONG, message)
    for i in _rows(pc.fill_null(_blank(uri), True)):
        found[i] = Problem(EMPTY_URI, f"{where(i)}: no uri")
    return found


def _blank(uri: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(uri)), 0)


def _rows(mask: pa.Array) -> list[int]:
    rows: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return rows


class RowBuilder:
    """Collects rows of a text format into batches of at most 65,536 rows or 32 MiB of text."""

    def __init__(self, source: Path, extras: pa.Schema, base: str | None = None):
        self._source, self._extras, self._base = source, extras, base
        self._types = {field.name: field.type for field in (*KNOWN_COLUMNS, *extras)}
        self._names = frozenset(self._types)
        self._clear()

    @property
    def names(self) -> frozenset[str]:
        """The columns that a row may have."""
        return self._names

    @property
    def full(self) -> bool:
        """It is time to `flush`."""
        return len(self._places) >= MAX_ROWS or self._bytes >= MAX_BYTES

    def __len__(self) -> int:
        return len(self._places)

    def add(self, values: Mapping[str, Any], line: int, size: int, problem: Problem | None = None) -> None:
        """One row. values: as read, by column; line: its number in the file; size: its length in the file."""
        i = len(self._places)
        self._places.append(line)
        self._bytes += size
        if problem is not None:
            self._row_problems[i] = problem
        for name, column in self._columns.items():
            value = values.get(name)
            parse = PARSERS.get(name)
            if parse is not None:
                try:
                    value = parse(value)
                except BadValue as error:
                    value = None
                    bad = Problem(MALFORMED_VALUE, f"line {line}: column {name}: {error}")
                    # Else the lack of a uri would be reported instead of its cause.
                    (self._row_problems if name == "uri" else self._value_problems).setdefault(i, bad)
            column.append(value)

    def flush(self) -> pa.RecordBatch:
        """The rows since the last flush. Raises ManifestError if they do not fit the types found before."""
        places = self._places
        try:
            columns = {name: pa.array(values, self._types[name]) for name, values in self._columns.items()}
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ManifestError(
                f"{self._source}: lines {places[0]} to {places[-1]} do not fit the types that the file had "
                f"when it was opened ({error}); was it written to while it was read? Copy it first"
            ) from error
        batch = assemble(
            columns,
            self._extras,
            len(places),
            self._row_problems,
            self._value_problems,
            lambda i: f"line {places[i]}",
            self._base,
        )
        self._clear()
        return batch

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in self._types}
        self._places: list[int] = []
        self._bytes = 0
        self._row_problems: dict[int, Problem] = {}
        self._value_problems: dict[int, Problem] = {}


def malformed(line: int, what: str, excerpt: str) -> Problem:
    """The problem of a line that is no row."""
    excerpt = redacted(excerpt.strip()[:MAX_URI])
    return Problem(MALFORMED_ROW, f"line {line}: {what}: {printable(excerpt, 120)}")
