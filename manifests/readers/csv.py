"""Manifests as CSV: comma, RFC 4180 quoting, a header row, UTF-8 with or without BOM, also gzipped."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.readers.batch import Problem, RowBuilder, malformed
from manifests.readers.lines import MAX_LINE, Line, lines, opened, replaced
from manifests.readers.options import AS_THEY_ARE, ReadOptions
from manifests.schema import KNOWN_COLUMNS, NOT_UTF8, TYPED_EXTRAS, ManifestError

# A quote that is never closed would swallow the rest of the file; it is given up after this many bytes.
# (Python's csv module gives up after as many characters in one field.)
MAX_RECORD = 2**17


class Record(NamedTuple):
    """The fields of one record. error: why it is none; the fields are then a guess from its first line."""

    line: int
    size: int
    fields: list[str]
    error: str | None
    raw: str


class CsvReader:
    """Reads a CSV manifest. Further columns are strings; those of `TYPED_EXTRAS` have their types.

    Raises ManifestError without a header row that has a uri column, with a header that has a name twice, and if the
    columns do not fit those of the options.
    """

    def __init__(self, path: Path, options: ReadOptions = AS_THEY_ARE):
        self._path, self._options = path, options
        with opened(path) as stream:
            header = next(records(lines(path, stream)), None)
        if header is None:
            raise ManifestError(f"{path}: the file is empty; the first row must name the columns, one of them uri")
        self._header = self._names(header)
        extras = [name for name in self._header if name not in KNOWN_COLUMNS.names]
        self.schema_extras: pa.Schema = pa.schema(
            [TYPED_EXTRAS.field(n) if n in TYPED_EXTRAS.names else pa.field(n, pa.string()) for n in extras]
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of `batch_schema(schema_extras)`, in file order."""
        builder = RowBuilder(self._path, self.schema_extras, self._options.base)
        with opened(self._path) as stream:
            found = records(lines(self._path, stream))
            next(found, None)
            for record in found:
                fields, problem = self._judge(record)
                builder.add(dict(zip(self._header, fields, strict=False)), record.line, record.size, problem)
                if builder.full:
                    yield builder.flush()
        if len(builder):
            yield builder.flush()

    def _judge(self, record: Record) -> tuple[list[str], Problem | None]:
        fields, problem = record.fields, None
        if record.error is not None:
            problem = malformed(record.line, record.error, record.raw)
        elif len(fields) != len(self._header):
            what = f"{len(fields)} fields, the header has {len(self._header)}"
            problem = malformed(record.line, what, record.raw)
        if _is_unicode(record.raw):
            return fields, problem
        names = [n for n, f in zip(self._header, fields, strict=False) if not _is_unicode(f)]
        message = f"line {record.line}: not UTF-8 in {', '.join(names) or 'the row'}: {_shown(record.raw)[:200]}"
        return [_shown(field) for field in fields], problem or Problem(NOT_UTF8, message)

    def _names(self, header: Record) -> list[str]:
        if "\r" in header.raw.rstrip("\r\n"):
            raise ManifestError(f"{self._path}: lines end with CR alone; save the file with LF or CRLF line ends")
        if header.error is not None or not _is_unicode(header.raw):
            reason = header.error or "not UTF-8"
            raise ManifestError(
                f"{self._path}: the header row cannot be read ({reason}); save the file as CSV in UTF-8"
            )
        names = [name.strip() for name in header.fields]
        shown = ", ".join(map(repr, names))[:300]
        renamed = self._options.renamed(self._path, names)
        if "uri" not in renamed.values():
            remedy = "name the column with the images' addresses uri or map it, and separate columns with commas"
            raise ManifestError(f"{self._path}: no uri column in the header row ({shown}); {remedy}")
        if len(set(names)) != len(names) or not all(name and name.isprintable() for name in names):
            what = "a column without a printable name, or a name twice"
            raise ManifestError(f"{self._path}: {what}, in the header row ({shown}); rename it")
        return [renamed[name] for name in names]


class _Source:
    """Feeds lines to csv.reader, remembers what it took for the current record, and takes lines back."""

    def __init__(self, found: Iterable[Line]):
        self._found, self._back = iter(found), deque[Line]()
        self.taken: list[Line] = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._size >= MAX_RECORD and self.taken:
            raise StopIteration
        line = self._back.popleft() if self._back else next(self._found)
        self.taken.append(line)
        self._size += len(line.data)
        return _text(line)

    def begin(self) -> None:
        self.taken, self._size = [], 0

    def keep_first(self) -> None:
        self._back.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def records(found: Iterable[Line]) -> Iterator[Record]:
    """The records of a CSV file without blank lines. Every line ends up in some record.

    What is not CSV costs its first line only: the lines that a stray quote made it take are read again.
    """
    source = _Source(found)
    reader = csv.reader(source, strict=True)
    while True:
        source.begin()
        error: str | None = None
        fields: list[str] = []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as reason:
            source.keep_first()
            error = _reason(reason, source.taken[0])
            fields = _guess(source.taken[0])
        first = source.taken[0]
        if first.blank and len(source.taken) == 1:
            continue
        if error is None and any(line.cut for line in source.taken):
            error = f"longer than {MAX_LINE} bytes"
        raw = "".join(map(_text, source.taken))
        yield Record(first.number, sum(len(line.data) for line in source.taken), fields, error, raw)


def names_in(start: bytes) -> list[str]:
    """The names in the header row that a file begins with, none if it is not CSV. It may be cut anywhere after it."""
    line = re.split(rb"[\r\n]", start, maxsplit=1)[0]
    try:
        return [name.strip() for name in next(csv.reader([line.decode(errors="replace")]), [])]
    except csv.Error:
        return []


def _reason(error: csv.Error, line: Line) -> str:
    if line.cut:
        return f"longer than {MAX_LINE} bytes"
    if "unexpected end" in str(error):
        return "a quote that is not closed"
    return "a carriage return within a field" if "new-line" in str(error) else f"not CSV ({error})"


def _guess(line: Line) -> list[str]:
    # What stands before the fault is usually right, and the uri is usually first.
    try:
        return next(csv.reader([_text(line)]), [])
    except csv.Error:
        return []


def _text(line: Line) -> str:
    return line.data.decode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    return replaced(text, "surrogateescape")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
