"""The data files of an S3 Inventory, in pieces: CSV (zipped, without a header), ORC and Parquet give the same columns.

What is in them: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.orc as orc
import pyarrow.parquet as pq

from manifests.inventory import Inventory, plain_name
from manifests.readers.batch import MAX_BYTES, MAX_ROWS, Problem, malformed
from manifests.readers.csv import Record, records
from manifests.readers.lines import lines, opened, replaced
from manifests.schema import MALFORMED_ROW, NOT_UTF8, ManifestError, printable

# By `plain_name`. What else an inventory may have is about locks, owners and replicas, and is not read.
TEXTS = ("bucket", "key", "versionid", "etag", "storageclass", "intelligenttieringaccesstier")
FLAGS = ("islatest", "isdeletemarker")
READ = frozenset((*TEXTS, *FLAGS, "size", "lastmodifieddate"))

_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Piece(NamedTuple):
    """Rows of a data file. columns: by `plain_name`, those of `READ` that the inventory has; bucket and key are text.

    unreadable: what is wrong with a row as a whole; its values are a guess then. where(i): where row i of the piece is
    in the file, such as "line 7".
    """

    columns: dict[str, pa.Array]
    unreadable: dict[int, Problem]
    where: Callable[[int], str]


def pieces(inventory: Inventory, path: Path) -> Iterator[Piece]:
    """The rows of one local data file, at most 65,536 at once.

    Raises ManifestError if the file is not whole or does not have the columns that the manifest says it has.
    """
    read = {"CSV": _csv, "ORC": _orc, "Parquet": _parquet}[inventory.format]
    return read(inventory, path)


def decode_key(text: str) -> str:
    """A key as it is, from what stands in a CSV inventory: URL-encoded in UTF-8, where a plus sign is a space.

    (A plus sign of the key itself is %2B there.) Raises ValueError if it is not encoded so.
    """
    if "%" not in text and "+" not in text:
        return text
    if _NO_ESCAPE.search(text):
        raise ValueError("not URL-encoded (a percent sign is %25 there)")
    return unquote_plus(text, errors="strict")


def _csv(inventory: Inventory, path: Path) -> Iterator[Piece]:
    columns = inventory.columns
    with opened(path) as stream:
        held: list[Record] = []
        size = 0
        for record in records(lines(path, stream)):
            held.append(record)
            size += record.size
            if len(held) >= MAX_ROWS or size >= MAX_BYTES:
                yield _piece(held, columns)
                held, size = [], 0
        if held:
            yield _piece(held, columns)


def _piece(held: list[Record], columns: tuple[str, ...]) -> Piece:
    unreadable: dict[int, Problem] = {}
    rows: list[list[str]] = []
    for i, record in enumerate(held):
        fields, raw = record.fields, record.raw
        if not raw.isascii():
            raw = replaced(raw, "surrogateescape")
            fields = [replaced(field, "surrogateescape") for field in fields]
        if record.error is not None:
            unreadable[i] = malformed(record.line, record.error, raw)
        elif len(fields) != len(columns):
            unreadable[i] = malformed(record.line, f"{len(fields)} fields, fileSchema has {len(columns)}", raw)
        elif raw != record.raw:
            unreadable[i] = Problem(NOT_UTF8, f"line {record.line}: not UTF-8: {raw[:200]}")
        rows.append([*fields, *[""] * (len(columns) - len(fields))])
    found = {name: [row[i] for row in rows] for i, name in enumerate(columns) if name in READ}
    found["key"] = [_key(text, i, held[i].line, unreadable) for i, text in enumerate(found["key"])]
    arrays = {name: pa.array(values, pa.string()) for name, values in found.items()}
    return _judged(Piece(arrays, unreadable, lambda i: f"line {held[i].line}"))


def _key(text: str, i: int, line: int, unreadable: dict[int, Problem]) -> str:
    try:
        return decode_key(text)
    except UnicodeDecodeError:
        unreadable.setdefault(i, Problem(NOT_UTF8, f"line {line}: the key {text[:200]!r} is not UTF-8"))
    except ValueError as error:
        unreadable.setdefault(i, Problem(MALFORMED_ROW, f"line {line}: the key {text[:200]!r} is {error}"))
    return unquote_plus(text, errors="replace")


def _orc(inventory: Inventory, path: Path) -> Iterator[Piece]:
    with _whole(path, "ORC"):
        file = orc.ORCFile(path)
    names = _names(path, inventory, file.schema)
    start = 0
    for i in range(file.nstripes):
        with _whole(path, "ORC"):
            stripe = file.read_stripe(i, columns=list(names.values()))
        for first in range(0, len(stripe), MAX_ROWS):
            yield _columns(stripe.slice(first, MAX_ROWS), names, start + first)
        start += len(stripe)


def _parquet(inventory: Inventory, path: Path) -> Iterator[Piece]:
    with _whole(path, "Parquet"):
        # buffer_size: read pages as they are needed, not whole column chunks.
        file = pq.ParquetFile(path, buffer_size=2**20)
    with file:
        names = _names(path, inventory, file.schema_arrow)
        found = file.iter_batches(batch_size=MAX_ROWS, columns=list(names.values()))
        start = 0
        while True:
            with _whole(path, "Parquet"):
                batch = next(found, None)
            if batch is None:
                return
            yield _columns(batch, names, start)
            start += len(batch)


def _names(path: Path, inventory: Inventory, schema: pa.Schema) -> dict[str, str]:
    """The columns to read, by `plain_name`, as the file names them."""
    there = {plain_name(field.name): field for field in schema}
    wanted = [name for name in inventory.columns if name in READ]
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ManifestError(
            f"{path}: has no column {', '.join(missing)}, which fileSchema names; the file is not of this inventory"
        )
    for name in wanted:
        kind = there[name].type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        fits = pa.types.is_boolean(kind) if name in FLAGS else not (pa.types.is_nested(kind) or name in TEXTS)
        if not fits and not _is_text(kind):
            raise ManifestError(f"{path}: column {there[name].name} is of type {kind}, which no inventory has")
    return {name: there[name].name for name in wanted}


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_binary))


def _columns(batch: pa.RecordBatch, names: dict[str, str], start: int) -> Piece:
    unreadable: dict[int, Problem] = {}
    columns: dict[str, pa.Array] = {}
    for name, own in names.items():
        column = batch[own]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if _is_text(column.type):
            column, broken = _text(column)
            for i in broken:
                unreadable.setdefault(i, Problem(NOT_UTF8, f"row {start + i}: not UTF-8 in column {own}"))
        columns[name] = column
    return _judged(Piece(columns, unreadable, lambda i: f"row {start + i}"))


def _text(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """The column as text, and the rows where it was not UTF-8: U+FFFD there."""
    try:
        column = column.cast(pa.string())
        column.validate(full=True)
        return column, []
    except pa.ArrowInvalid:
        values = column.cast(pa.large_binary()).to_pylist()
    texts = [None if value is None else value.decode(errors="replace") for value in values]
    broken = [i for i, text in enumerate(texts) if text is not None and text.encode() != values[i]]
    return pa.array(texts, pa.string()), broken


def _judged(piece: Piece) -> Piece:
    """The piece, with the rows that have no bucket or no key among the unreadable ones."""
    for name in ("bucket", "key"):
        empty = pc.fill_null(pc.equal(piece.columns[name], ""), True)
        for i in pc.indices_nonzero(empty).to_pylist():
            piece.unreadable.setdefault(i, Problem(MALFORMED_ROW, f"{piece.where(i)}: no {name}"))
    return piece


@contextmanager
def _whole(path: Path, kind: str) -> Iterator[None]:
    """Turns what Arrow says of a damaged file into a ManifestError that names it."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        said = printable(str(error))
        raise ManifestError(f"{path}: not a whole {kind} file ({said}); copy it again") from error
