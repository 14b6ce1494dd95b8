"""The columns of a manifest, of a frozen manifest, and the name that every image gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

TIME = pa.timestamp("us", tz="UTC")
KNOWN_COLUMNS: pa.Schema = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("version_id", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("captured_at", TIME),
        pa.field("line", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("declared_category", pa.string()),
    ]
)
# Carried through as further columns, but with a fixed type in every format.
TYPED_EXTRAS: pa.Schema = pa.schema(
    [pa.field("size", pa.int64()), pa.field("last_modified", TIME), pa.field("labels", pa.string())]
)

_PLACE = (pa.field("row", pa.int64()), pa.field("shard", pa.int32()), pa.field("image_id", pa.string()))
PROBLEM_COLUMNS = (pa.field("problem_code", pa.string()), pa.field("problem_message", pa.string()))
# What a row without a usable uri is named after.
_NAMING = ("uri", "version_id", "etag", "problem_code", "problem_message")

EMPTY_URI = "empty_uri"
MALFORMED_ROW = "malformed_row"
MALFORMED_VALUE = "malformed_value"
NOT_UTF8 = "not_utf8"
URI_TOO_LONG = "uri_too_long"
CONTROL_CHARACTER = "control_character"
CREDENTIALS_IN_URI = "credentials_in_uri"
DUPLICATE = "duplicate"
PROBLEM_CODES = (
    EMPTY_URI,
    MALFORMED_ROW,
    MALFORMED_VALUE,
    NOT_UTF8,
    URI_TOO_LONG,
    CONTROL_CHARACTER,
    CREDENTIALS_IN_URI,
    DUPLICATE,
)

MAX_URI = 4096  # characters
MAX_MESSAGE = 300  # characters
MAX_COLUMNS = 1000  # a JSONL file with a new key in every row must not become a table with a column per row


class ManifestError(ValueError):
    """The manifest as a whole cannot be used. The message names the file and what to do about it."""


class NothingLeft(ManifestError):
    """A manifest of which the filters leave nothing. left_out: rows by the filter that left them out."""

    def __init__(self, message: str, left_out: Mapping[str, int]):
        super().__init__(message)
        self.left_out = dict(left_out)


def batch_schema(extras: pa.Schema) -> pa.Schema:
    """Columns of the batches that a reader yields: the known ones, the row's problem, the manifest's own."""
    return pa.schema([*KNOWN_COLUMNS, *PROBLEM_COLUMNS, *extras])


def frozen_schema(extras: pa.Schema) -> pa.Schema:
    """Columns of a frozen manifest.

    row: int64, position in the source from 0; shard: int32; image_id: string, 32 hexadecimal digits; then as
    `batch_schema`. Problem columns are null for a good row.
    """
    return pa.schema([*_PLACE, *KNOWN_COLUMNS, *PROBLEM_COLUMNS, *extras])


def image_id(uri: str, version_id: str | None, etag: str | None) -> str:
    """Name of an image: 32 hexadecimal digits that stay the same every night as long as the object does."""
    return _digest(f"{uri}\0{version_id or etag or ''}")


def row_id(row: int, content: Iterable[object]) -> str:
    """Name of a row without a usable uri: 32 hexadecimal digits from its position and what was kept of it.

    No uri that is usable begins with NUL, so it never equals the name of an image.
    """
    return _digest("\0".join(["", "row", str(row), *("" if value is None else str(value) for value in content)]))


def row_names(batch: pa.RecordBatch, rows: Sequence[int]) -> list[str]:
    """The names of a reader's rows, which are at these positions in the source: `image_id`, else `row_id`."""
    known = [batch[name].to_pylist() for name in ("uri", "version_id", "etag")]
    names = [image_id(uri or "", version, etag) for uri, version, etag in zip(*known, strict=True)]
    bad = pc.indices_nonzero(batch["problem_code"].is_valid())
    for i, row in zip(bad.to_pylist(), batch.select(list(_NAMING)).take(bad).to_pylist(), strict=True):
        # A row with a bad time still names an image; of the other problems each is one of the uri or may be.
        if not row["uri"] or row["problem_code"] != MALFORMED_VALUE:
            names[i] = row_id(rows[i], (row[name] for name in _NAMING))
    return names


def check_names(source: str, extras: pa.Schema, reserved: frozenset[str]) -> None:
    """Refuse columns that could not stand beside those of the frozen manifest and of the results.

    Case does not count, because the query engines that read the results ignore it. Raises ManifestError.
    """
    taken = {name.casefold() for name in reserved} | {name.casefold() for name in frozen_schema(pa.schema([])).names}
    clash = sorted(name for name in extras.names if name.casefold() in taken)
    if clash:
        raise ManifestError(
            f"{source}: column {', '.join(map(repr, clash))}: the results have a column of that name "
            "(case does not count); rename it in the manifest"
        )
    seen: dict[str, str] = {}
    for name in extras.names:
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise ManifestError(f"{source}: columns {other!r} and {name!r} differ in case at most; rename one of them")


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """The text with everything unprintable escaped, cut to `limit` characters."""
    # Escaping only makes it longer, so what lies behind the limit need not be looked at.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
