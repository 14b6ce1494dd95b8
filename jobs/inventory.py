"""An S3 Inventory, from wherever it was delivered or copied to: found, downloaded and verified, for its reader."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jobs.listing import names_below
from jobs.storage import download, exists, is_file, read_bytes
from jobs.uris import is_local, join, normal, parent, path_of, scheme_of
from manifests.build import is_image_name
from manifests.inventory import (
    CHECKSUM,
    MANIFEST,
    Inventory,
    is_inventory_key,
    newest,
    parse,
    verify_checksum,
    verify_file,
)
from manifests.schema import ManifestError

# An inventory's folders are named after days, so they come before data/ in every listing of S3.
_FIRST_NAMES = 1000
_DEPTH = 3  # slashes in <source bucket>/<configuration>/<time>/manifest.json
_FILE_SUFFIX = re.compile(r"[^/]\.[A-Za-z]\w*$")
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True)
class LocalInventory:
    """What `manifests.readers.inventory.InventoryReader` needs.

    uri: of its manifest.json; sha256: of manifest.json, which holds the MD5 of every data file; files: verified local
    copies of the data files, in its order.
    """

    uri: str
    sha256: str
    inventory: Inventory
    files: tuple[Path, ...]


def is_inventory(uri: str) -> bool:
    """Whether a URI is that of an inventory: its manifest.json, the folder that holds it, or the prefix above.

    A name with a suffix, such as ``night.parquet``, is taken for a file without asking the storage. A prefix is one of
    an inventory if a manifest.json or manifest.checksum lies at most three folders below, and no image, among the first
    1,000 names. Raises StorageAccessError.
    """
    uri = normal(uri)
    if uri.endswith("/" + MANIFEST):
        return _is_manifest(uri)
    if scheme_of(uri) in ("http", "https") or ("/" in path_of(uri) and _FILE_SUFFIX.search(uri)):
        return False
    if is_file(uri):  # asked first: where listing is not allowed, S3 denies what is not there
        return False
    if _is_manifest(join(uri, MANIFEST)):
        return True
    names = list(islice(names_below(uri), _FIRST_NAMES))
    delivered = any(name.count("/") <= _DEPTH and is_inventory_key(name) for name in names)
    return delivered and not any(map(is_image_name, names))


def find(uri: str, date: str | None = None) -> str:
    """The URI of the manifest.json that a URI means: itself, the one in that folder, or the newest below that prefix.

    date: only inventories of that day (UTC, YYYY-MM-DD). Raises ManifestError if there is none, if there are several
    configurations, and for a date where a URI means one inventory already; StorageAccessError.
    """
    uri = normal(uri)
    manifest = uri if uri.endswith("/" + MANIFEST) else join(uri, MANIFEST)
    if exists(manifest):
        if date is not None:
            raise ManifestError(f"{manifest}: is one inventory; a date chooses among those below a prefix, give that")
        return manifest
    if manifest == uri:
        raise ManifestError(f"{uri}: there is no such file; give the {MANIFEST} of an inventory or the prefix above")
    try:
        return join(uri, newest(names_below(uri), date))
    except ManifestError as error:
        raise ManifestError(f"{uri}: {error}") from error


def fetch(uri: str, folder: Path, date: str | None = None) -> LocalInventory:
    """Find an inventory, and download its data files into a local folder; nothing in it is believed unverified.

    uri, date: as for `find`. Raises ManifestError naming what is absent, changed or not whole; StorageAccessError.
    """
    manifest = find(uri, date)
    checksum = join(parent(manifest), CHECKSUM)
    said = read_bytes(manifest)
    try:
        verify_checksum(said, read_bytes(checksum), manifest)
    except _ABSENT as error:
        raise ManifestError(
            f"{manifest}: no {CHECKSUM} beside it, so the inventory is not finished; or copy that file too"
        ) from error
    inventory = parse(said, manifest)
    files: list[Path] = []
    for i, entry in enumerate(inventory.files):
        source, local = data_uri(manifest, entry.key), folder / f"data-{i:05d}"
        try:
            download(source, local)
            verify_file(local, entry)
        except _ABSENT as error:
            raise ManifestError(
                f"{manifest}: lists {entry.key}, but there is no {source}; copy the data files along with it, or take "
                "a newer inventory"
            ) from error
        except ManifestError as error:
            raise ManifestError(f"{manifest}: data file {error}") from error
        files.append(local)
    return LocalInventory(manifest, hashlib.sha256(said).hexdigest(), inventory, tuple(files))


def data_uri(manifest: str, key: str) -> str:
    """Where the data file of a manifest.json lies that gives its key in the destination bucket.

    Always below the folder of the configuration, which holds the folder of the manifest.json, so that a manifest cannot
    make us read anything else: under its own key if the manifest lies where S3 delivered it; in a copy, in another
    bucket or on a disk, under the last two parts of the key (``data/<name>``). Raises ManifestError if the manifest
    lies in no folder.
    """
    place = path_of(manifest)
    if place.count("/") < 2:
        raise ManifestError(
            f"{manifest}: the {MANIFEST} of an inventory lies in a folder of its own, beside the folder data; "
            "copy it so"
        )
    configuration = parent(parent(manifest))
    if not is_local(manifest):
        bucket, _, prefix = path_of(configuration).partition("/")
        if prefix and key.startswith(f"{prefix}/"):
            return f"{scheme_of(manifest)}://{bucket}/{key}"
    return join(configuration, *key.split("/")[-2:])


def _is_manifest(uri: str) -> bool:
    try:
        said = read_bytes(uri)
    except _ABSENT:
        return False
    # One that is damaged is an inventory too: of what else it might be, every line would be a bad row.
    return b'"fileSchema"' in said or exists(join(parent(uri), CHECKSUM))
