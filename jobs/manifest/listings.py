"""Listings of storage as manifests: the images below a prefix, or those that a glob matches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.listing import Entry, listing
from jobs.storage import exists
from jobs.uris import is_local
from manifests.build import BuildSummary, PathPattern, build, is_image_name
from manifests.globs import split_glob
from manifests.schema import ManifestError


def list_images(source: str, pattern: str | None, output: Path) -> BuildSummary:
    """Write a Parquet manifest of the images below a folder or prefix, or of those that a glob matches.

    pattern: what paths below the folder say. Raises ManifestError if there are no images or a pattern is wrong,
    StorageAccessError.
    """
    found = glob_of(source)
    if found is not None:
        if pattern is not None:
            raise ManifestError(f"{source}: is a pattern itself; write its fields there, such as {{line}}/*.png")
        base, text = found
        wild = PathPattern(text, wildcards=True)
        entries = [] if is_local(base) and not exists(base) else listing(base)
        matching = (one for one in entries if _is_image(one) and wild.match(one.relative_path) is not None)
        summary = build(map(_described, matching), output, wild)
        if summary.rows == 0:
            raise ManifestError(f"{source}: no image matches; below {base} there is {an_example(base)}")
        return summary
    fields = PathPattern(pattern) if pattern is not None else None
    first: list[str] = []
    summary = build(map(_described, _images(listing(source), first)), output, fields)
    if summary.rows == 0:
        said = "no images here" if exists(source) else "there is nothing here, or it does not answer"
        raise ManifestError(f"{source}: {said}; give the folder or prefix that holds the images")
    if summary.unmatched == summary.rows:
        raise ManifestError(f"pattern {pattern!r}: no path below {source} matches, the first is {first[0]!r}")
    return summary


def glob_of(uri: str) -> tuple[str, str] | None:
    """As split_glob, but a name that is there as it is written is no glob."""
    found = split_glob(uri)
    return None if found is None or exists(uri) else found


def _images(entries: Iterable[Entry], first: list[str]) -> Iterator[Entry]:
    for entry in filter(_is_image, entries):
        if not first:
            first.append(entry.relative_path)
        yield entry


def _described(entry: Entry) -> dict[str, Any]:
    """An entry for the manifest. A local file has no ETag; its time and size tell it from one of the same name."""
    found = asdict(entry)
    if entry.etag is None and entry.last_modified is not None and entry.size is not None:
        found["etag"] = f"{round(entry.last_modified.timestamp() * 1e6):x}-{entry.size:x}"
    return found


def _is_image(entry: Entry) -> bool:
    return is_image_name(entry.relative_path)


def an_example(base: str) -> str:
    """What lies below a folder or prefix, for messages."""
    entry = next(iter(listing(base)), None)
    return "nothing" if entry is None else f"for instance {entry.relative_path!r}"
