"""What lies below a folder or prefix, in whatever storage fsspec knows, by URI. Listings are never held as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem

from jobs.storage import filesystem
from jobs.storage_errors import access, is_bucket_missing
from jobs.uris import is_local, is_s3, path_of


@dataclass(frozen=True)
class Entry:
    """One object of a listing. uri: full; relative_path: below the listed prefix; size in bytes."""

    uri: str
    relative_path: str
    size: int | None
    etag: str | None
    last_modified: datetime | None


def listing(uri: str) -> Iterator[Entry]:
    """Every object below a folder or prefix, sorted by name. An absent folder has none.

    Only a page or a folder of them is held. Raises StorageAccessError, also for a folder below that cannot be read.
    """
    with access(uri):
        fs, base = filesystem(uri), path_of(uri)
        fs.invalidate_cache()
        if is_s3(uri):
            yield from _s3_entries(fs, base, uri.partition("://")[0])
            return
        if is_local(uri):
            yield from _local_entries(base)
            return
        found: Mapping[str, Mapping[str, Any]] = fs.find(base, detail=True)
    prefix = uri.partition("://")[0] + "://"
    for path in sorted(found):
        info = found[path]
        relative = path[len(base) :].lstrip("/")
        if info.get("type") == "directory" or not relative:
            continue
        modified = info.get("LastModified", info.get("mtime"))
        if isinstance(modified, int | float):
            modified = datetime.fromtimestamp(modified).astimezone()
        etag = info.get("ETag")
        yield Entry(prefix + path, relative, info.get("size"), etag.strip('"') if etag else None, modified)


def names_below(uri: str) -> Iterator[str]:
    """The objects below a folder or prefix, relative to it, in no order. Only a page or a folder of them is held."""
    with access(uri):
        fs, base = filesystem(uri), path_of(uri)
        if is_local(uri):
            yield from _local_names(base)
        elif is_s3(uri):
            yield from _s3_names(fs, base)
        else:
            yield from (entry.relative_path for entry in listing(uri))


def _local_entries(base: str) -> Iterator[Entry]:
    levels = [_in_folder(base)]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
        elif found.is_dir(follow_symlinks=False):
            levels.append(_in_folder(found.path))
        else:
            try:
                there = found.stat(follow_symlinks=False)
                size = os.stat(found.path).st_size if os.path.exists(found.path) else 0  # a link may lead nowhere
            except FileNotFoundError:  # gone since
                continue
            modified = datetime.fromtimestamp(there.st_mtime).astimezone()
            yield Entry(found.path, found.path[len(base) :].lstrip("/"), size, None, modified)


def _in_folder(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            entries = list(found)
    except (FileNotFoundError, NotADirectoryError):
        return iter(())
    # So that the paths of all files come in their order: a-b/x before a/x.
    return iter(sorted(entries, key=lambda entry: entry.name + "/" * entry.is_dir(follow_symlinks=False)))


def _local_names(base: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for folder, _, names in os.walk(base, onerror=fail):
        yield from (os.path.relpath(os.path.join(folder, name), base) for name in names)


def _s3_names(fs: AbstractFileSystem, base: str) -> Iterator[str]:
    for found, prefix in _s3_objects(fs, base):
        yield found["Key"].removeprefix(prefix)


def _s3_entries(fs: AbstractFileSystem, base: str, scheme: str) -> Iterator[Entry]:
    bucket = base.partition("/")[0]
    for found, prefix in _s3_objects(fs, base):
        key = found["Key"]
        if not key.endswith("/"):  # a key that a console shows as a folder
            etag, modified = found["ETag"].strip('"'), found["LastModified"]
            yield Entry(f"{scheme}://{bucket}/{key}", key.removeprefix(prefix), found["Size"], etag, modified)


def _s3_objects(fs: AbstractFileSystem, base: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Objects as S3 lists them, in the order of their keys, with the prefix that they were asked for by."""
    bucket, _, key = base.partition("/")
    prefix = f"{key}/" if key else ""
    further: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **further)
        yield from ((found, prefix) for found in page.get("Contents", []))
        if not page.get("IsTruncated"):
            return
        further = {"ContinuationToken": page["NextContinuationToken"]}


def names(uri: str) -> list[str]:
    """What lies directly in a folder or below a prefix, by name, sorted. An absent folder has nothing.

    Raises StorageAccessError, also for an absent bucket.
    """
    with access(uri):
        fs = filesystem(uri)
        fs.invalidate_cache()
        try:
            found = fs.ls(path_of(uri), detail=False)
        except FileNotFoundError as error:
            if is_bucket_missing(error):
                raise
            return []
    return sorted(path.rstrip("/").rpartition("/")[2] for path in found)
