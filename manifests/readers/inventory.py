"""S3 Inventory as a manifest: the images among the current objects of a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.build import PathPattern, is_image_name
from manifests.inventory import Inventory
from manifests.readers.batch import Problem, assemble
from manifests.readers.inventory_files import FLAGS, Piece, pieces
from manifests.readers.parquet import typed
from manifests.schema import KNOWN_COLUMNS, MALFORMED_VALUE, TYPED_EXTRAS, ManifestError

DELETE_MARKER = "delete_marker"
OLD_VERSION = "old_version"
FOLDER = "folder"
NOT_AN_IMAGE = "not_an_image"
LEFT_OUT = (DELETE_MARKER, OLD_VERSION, FOLDER, NOT_AN_IMAGE)

# The last two say which objects no GET gives out: they are archived, and must be restored first.
_EXTRAS = pa.schema(
    [*TYPED_EXTRAS, pa.field("storage_class", pa.string()), pa.field("intelligent_tiering_access_tier", pa.string())]
)
_NAMES = {
    "versionid": "version_id",
    "etag": "etag",
    "size": "size",
    "lastmodifieddate": "last_modified",
    "storageclass": "storage_class",
    "intelligenttieringaccesstier": "intelligent_tiering_access_tier",
}
_FLAG = {"true": True, "false": False, "": None}


class InventoryReader:
    """Reads the local copies of an inventory's data files, in the order of its manifest, as `ManifestReader`.

    Every current object that has an image's suffix is a row, and so is every line that cannot be read. What is passed
    over is counted in left_out, by the first of `LEFT_OUT` that holds. pattern: held against the whole key; unmatched
    counts the rows that it does not fit. Both counts are of the last `batches()`, complete once it has ended.

    Whether the copies are whole is for `manifests.inventory.verify_file` to say. Raises ValueError if there are more or
    fewer files than the manifest lists.
    """

    def __init__(self, inventory: Inventory, files: Sequence[Path], pattern: PathPattern | None = None):
        if len(files) != len(inventory.files):
            raise ValueError(f"{len(files)} files for an inventory of {len(inventory.files)}")
        self._inventory, self._files, self._pattern = inventory, tuple(files), pattern
        there = {_NAMES[name] for name in inventory.columns if name in _NAMES}
        self.schema_extras: pa.Schema = pa.schema([field for field in _EXTRAS if field.name in there])
        self.left_out: dict[str, int] = dict.fromkeys(LEFT_OUT, 0)
        self.unmatched = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of `batch_schema(schema_extras)`, file by file. A problem names its file where there are several.

        Raises ManifestError naming the file that is not whole, or not of this inventory.
        """
        self.left_out = dict.fromkeys(LEFT_OUT, 0)
        self.unmatched = 0
        for entry, path in zip(self._inventory.files, self._files, strict=True):
            place = f"{entry.name}: " if len(self._files) > 1 else ""
            try:
                for piece in pieces(self._inventory, path):
                    batch = self._batch(piece, place)
                    if len(batch):
                        yield batch
            except ManifestError as error:
                raise ManifestError(str(error).replace(str(path), entry.key)) from error

    def _batch(self, piece: Piece, place: str) -> pa.RecordBatch:
        kept, flaws = self._kept(piece)
        found = {name: column.take(pa.array(kept, pa.int64())) for name, column in piece.columns.items()}
        whole: dict[int, Problem] = {}
        values: dict[int, Problem] = {}
        for i, row in enumerate(kept):
            if row in piece.unreadable:
                problem = piece.unreadable[row]
                whole[i] = Problem(problem.code, place + problem.message)
            if row in flaws:
                values[i] = Problem(MALFORMED_VALUE, f"{place}{piece.where(row)}: {flaws[row]}")
        bucket, key = _or_null(found["bucket"]), _or_null(found["key"])
        columns = {"uri": pc.binary_join_element_wise("s3:/", bucket, key, "/")}
        for name, own in _NAMES.items():
            if name in found:
                columns[own], bad = _typed(own, found[name])
                for i, reason in bad.items():
                    message = f"{place}{piece.where(kept[i])}: column {own}: {reason}"
                    values.setdefault(i, Problem(MALFORMED_VALUE, message))
        if self._pattern is not None:
            columns |= self._said(self._pattern, key.to_pylist())
        return assemble(columns, self.schema_extras, len(kept), whole, values, lambda i: place + piece.where(kept[i]))

    def _kept(self, piece: Piece) -> tuple[list[int], dict[int, str]]:
        """The rows that are not left out, and for which of them a flag is neither true nor false."""
        kept: list[int] = []
        flaws: dict[int, str] = {}
        latest, marker = (_flags(piece.columns.get(name)) for name in FLAGS)
        sizes = piece.columns["size"].to_pylist() if "size" in piece.columns else repeat(0)
        for i, row in enumerate(zip(piece.columns["key"].to_pylist(), latest, marker, sizes, strict=False)):
            reason = None if i in piece.unreadable else _reason(*row)
            if reason is not None:
                self.left_out[reason] += 1
                continue
            for name, flag in zip(FLAGS, row[1:3], strict=True):
                if isinstance(flag, str):
                    flaws.setdefault(i, f"column {name}: {flag!r} is neither true nor false")
            kept.append(i)
        return kept, flaws

    def _said(self, pattern: PathPattern, keys: Iterable[str | None]) -> dict[str, pa.Array]:
        """The columns that the pattern fills."""
        said = [None if key is None else pattern.match(key) for key in keys]
        self.unmatched += said.count(None)
        return {
            name: pa.array([each and each[name] for each in said], KNOWN_COLUMNS.field(name).type)
            for name in pattern.fields
        }


def _reason(key: str, latest: bool | str | None, marker: bool | str | None, size: int | str | None) -> str | None:
    """Why a row is left out, or None. A flag that says nothing leaves nothing out."""
    if marker is True:
        return DELETE_MARKER
    if latest is False:
        return OLD_VERSION
    if key.endswith("/") and size in (0, "0"):
        return FOLDER
    return None if is_image_name(key) else NOT_AN_IMAGE


def _flags(column: pa.Array | None) -> Iterable[bool | str | None]:
    """True, False, None, or the text that is none of them."""
    if column is None:
        return repeat(None)
    values = column.to_pylist()
    return values if pa.types.is_boolean(column.type) else [_FLAG.get((v or "").lower(), v) for v in values]


def _typed(name: str, column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """A column as the manifest has it, and what is wrong with the values that it cannot hold."""
    if pa.types.is_string(column.type):
        column = _or_null(column)
    if name == "version_id":  # "null" is the version of an object from before its bucket had versions
        column = pc.if_else(pc.equal(column, "null"), pa.scalar(None, column.type), column)
    if name in TYPED_EXTRAS.names or name in KNOWN_COLUMNS.names:
        return typed(name, column)
    return column, {}


def _or_null(text: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)
