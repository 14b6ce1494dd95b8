"""What ``--manifest`` names: a file, an S3 Inventory, a prefix, a glob, or several of them, opened as one manifest."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.inventory import fetch, is_inventory
from jobs.listing import listing
from jobs.manifest.listings import an_example, glob_of, list_images
from jobs.storage import download, is_file
from jobs.uris import is_local, join, normal, parent, path_of
from manifests.build import PathPattern, is_image_name
from manifests.filters import Filters
from manifests.freeze import FrozenManifest, freeze
from manifests.readers import FORMATS, ManifestReader, ReadOptions, open_manifest
from manifests.readers.inventory import InventoryReader
from manifests.readers.several import SeveralReader
from manifests.schema import ManifestError, NothingLeft

PREFIX, INVENTORY, FILE, MANIFESTS = "prefix", "inventory", "file", "manifests"
SOURCE_FORMATS = (*FORMATS, INVENTORY, PREFIX)
_MANIFEST_SUFFIXES = (".parquet", ".pq", ".csv", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz", ".ndjson.gz")


@dataclass(frozen=True)
class SourceOptions:
    """How sources are read.

    format: one of SOURCE_FORMATS, None to detect it; prefix is what lies below a folder. columns: known column to its
    name in the file. base: what relative uris are put behind. pattern: what the paths of a listing or an inventory say.
    inventory_date: YYYY-MM-DD, of the inventory to take where there are several. absolute: relative uris are put behind
    the folder of their manifest, so that images are named after where they are.
    """

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    pattern: str | None = None
    inventory_date: str | None = None
    absolute: bool = False


@dataclass(frozen=True)
class Source:
    """An opened manifest. name: for messages. sha256: of what was read. inventories: their readers, which count what
    they leave out while they are read. places: local copies and what they are copies of. lists: whether it is all that
    an object store has there, with the times at which it got there."""

    reader: ManifestReader
    name: str
    sha256: str
    inventories: tuple[InventoryReader, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    lists: bool = False

    def passed_over(self) -> dict[str, int]:
        """What the inventories list that is no current image, by kind, once all is read."""
        return dict(sum((Counter(inventory.left_out) for inventory in self.inventories), Counter[str]()))

    @contextmanager
    def read(self) -> Iterator[ManifestReader]:
        """The reader; a ManifestError while it is read has the names that people know."""
        try:
            yield self.reader
        except NothingLeft as error:
            raise NothingLeft(_told(str(error), self.places), error.left_out) from error
        except ManifestError as error:
            raise ManifestError(_told(str(error), self.places)) from error


def open_sources(uris: Sequence[str], options: SourceOptions, local: Path) -> Source:
    """Open one manifest or several as one. local: a folder of our own for copies, which stay while it is read.

    Of several, a relative uri belongs to the folder of its own manifest, unless there is a base. Raises ManifestError
    naming what cannot be used, StorageAccessError.
    """
    expanded = [one for uri in uris for one in _expanded(uri, options)]
    found = []
    for number, uri in enumerate(expanded):
        folder = local / "sources" / str(number)
        folder.mkdir(parents=True)
        base = options.base or (parent(uri) if len(expanded) > 1 or options.absolute else None)
        found.append(_opened(uri, options, base, folder))
    if len(found) == 1:
        return found[0]
    reader = SeveralReader([(one.name, one.reader) for one in found])
    return Source(
        reader,
        ", ".join(uris),
        hashlib.sha256("".join(one.sha256 for one in found).encode()).hexdigest(),
        tuple(inventory for one in found for inventory in one.inventories),
        {copy: uri for one in found for copy, uri in one.places.items()},
        all(one.lists for one in found),
    )


def freeze_sources(
    uris: Sequence[str],
    options: SourceOptions,
    filters: Filters | Callable[[Source], Filters],
    local: Path,
    *,
    shard_rows: int | None = None,
    reserved: frozenset[str] = frozenset(),
) -> FrozenManifest:
    """Open manifests and freeze them into ``local/frozen``. filters: they, or what makes them of the opened manifests.

    Raises ManifestError, StorageAccessError.
    """
    source = open_sources(uris, options, local)
    with source.read() as reader:
        frozen = freeze(
            reader,
            local / "frozen",
            name=source.name,
            source_sha256=source.sha256,
            filters=filters if isinstance(filters, Filters) else filters(source),
            shard_rows=shard_rows,
            reserved=reserved,
        )
    return replace(frozen, left_out={**frozen.left_out, **source.passed_over()})


def digest_of(uris: Sequence[str], options: SourceOptions, local: Path) -> str | None:
    """What the sha256 of these sources is now; None if that is not compared: a listing is of its moment.

    Raises FileNotFoundError, StorageAccessError.
    """
    if len(uris) > 1 or kind_of(uris[0], options) != FILE:
        return None
    copy = local / "copy"
    download(uris[0], copy)
    return _sha256(copy)


def kind_of(uri: str, options: SourceOptions) -> str:
    """What a source is: FILE, INVENTORY, PREFIX (images that are listed, of a glob too) or MANIFESTS, a glob of them.

    The storage is asked, so ask once.
    """
    named = uri.lower().endswith(_MANIFEST_SUFFIXES)
    if glob_of(uri) is not None:
        return MANIFESTS if named and options.format != PREFIX else PREFIX
    if options.format is not None:
        return options.format if options.format in (PREFIX, INVENTORY) else FILE
    if named:
        return FILE
    if is_inventory(uri):
        return INVENTORY
    return FILE if is_file(uri) else PREFIX


def is_listed(uri: str, options: SourceOptions) -> bool:
    """Whether a source is a listing of images, not a file or an inventory."""
    return kind_of(uri, options) == PREFIX


def _opened(uri: str, options: SourceOptions, base: str | None, folder: Path) -> Source:
    kind = kind_of(uri, options)
    if kind == PREFIX:
        return _listed(uri, options.pattern, folder)
    if kind == INVENTORY:
        return _inventory(uri, options, folder)
    return _file(uri, options, base, folder)


def _file(uri: str, options: SourceOptions, base: str | None, folder: Path) -> Source:
    if is_image_name(uri):
        raise ManifestError(f"{uri}: an image, not a manifest; name its folder, or a glob in quotes")
    if is_local(uri) and os.path.isdir(path_of(uri)):
        raise ManifestError(
            f"{uri}: a folder, not a file; name {uri}/* with the suffix of its manifests, or give --format prefix"
        )
    copy = folder / (uri.rpartition("/")[2] or "manifest")
    places = {str(copy): uri}
    try:
        download(uri, copy)
    except FileNotFoundError as error:
        raise ManifestError(f"{uri}: there is no such manifest") from error
    if options.pattern is not None:
        raise ManifestError(f"{uri}: a pattern is for a prefix or an S3 Inventory; a file has columns")
    try:
        reader = open_manifest(copy, options.format, ReadOptions(options.columns, base))
    except ManifestError as error:
        raise ManifestError(_told(str(error), places)) from error
    return Source(reader, uri, _sha256(copy), (), places)


def _listed(uri: str, pattern: str | None, folder: Path) -> Source:
    copy = folder / "listing.parquet"
    list_images(uri, pattern, copy)
    return Source(open_manifest(copy, "parquet"), uri, _sha256(copy), (), {str(copy): uri}, not is_local(uri))


def _inventory(uri: str, options: SourceOptions, folder: Path) -> Source:
    if options.columns:
        raise ManifestError(f"{uri}: an S3 Inventory has columns of its own; a mapping is for other formats")
    found = fetch(uri, folder, options.inventory_date)
    pattern = PathPattern(options.pattern) if options.pattern is not None else None
    reader = InventoryReader(found.inventory, list(found.files), pattern)
    places = {str(path): f"{found.uri}, data file {number}" for number, path in enumerate(found.files, 1)}
    return Source(reader, found.uri, found.sha256, (reader,), places, True)


def _expanded(uri: str, options: SourceOptions) -> list[str]:
    """A glob of manifests is all of them, in order; anything else stays."""
    found = glob_of(uri)
    if found is None or kind_of(uri, options) != MANIFESTS:
        return [uri]
    base, text = found
    wild = PathPattern(text, wildcards=True)
    if wild.fields:
        raise ManifestError(f"{uri}: fields such as {{line}} are for paths of images; write * for manifests")
    below = (entry.relative_path for entry in listing(base))
    matching = [normal(join(base, path)) for path in below if wild.match(path) is not None]
    if not matching:
        raise ManifestError(f"{uri}: no manifest matches; below {base} there is {an_example(base)}")
    return matching


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(message: str, places: Mapping[str, str]) -> str:
    for copy, uri in places.items():
        message = message.replace(copy, uri)
    return message
