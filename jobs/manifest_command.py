"""``line-audit manifest build``: the images below a folder or prefix, as a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from jobs.audit import exits
from jobs.storage import Entry, exists, listing, scratch, upload
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, note
from jobs.terminal import output as console
from jobs.uris import normal
from manifests.build import BuildSummary, PathPattern, build, is_image_name
from manifests.schema import ManifestError


def build_manifest(source: str, output: str, pattern: str | None = None) -> BuildSummary:
    """List the images below ``source`` and write the manifest ``output`` whole or not at all.

    Raises ManifestError if there are no images or the pattern is wrong, StorageAccessError.
    """
    if not output.endswith(".parquet"):
        raise ManifestError(f"{output}: a manifest is written as Parquet; give a name that ends in .parquet")
    fields = PathPattern(pattern) if pattern is not None else None
    source = normal(source)
    first: list[str] = []
    entries = (asdict(entry) for entry in _seen(listing(source), first))
    with scratch() as local:
        summary = build(entries, local / "manifest", fields)
        if summary.rows == 0:
            found = "no images here" if exists(source) else "there is nothing here, or it does not answer"
            raise ManifestError(f"{source}: {found}; give the folder or prefix that holds the images")
        if summary.unmatched == summary.rows:
            raise ManifestError(f"pattern {pattern!r}: no path below {source} matches, the first is {first[0]!r}")
        upload(local / "manifest", normal(output))
    return summary


def _seen(entries: Iterable[Entry], first: list[str]) -> Iterator[Entry]:
    for entry in entries:
        if is_image_name(entry.relative_path):
            if not first:
                first.append(entry.relative_path)
            yield entry


def build_command(source: str, output: str, pattern: str | None) -> int:
    """Build a manifest; returns the exit code: 0, 2 usage, 4 storage."""
    try:
        summary = build_manifest(source, output, pattern)
    except (ManifestError, ValueError) as error:
        complain(str(error))
        return exits.USAGE
    except StorageAccessError as error:
        complain(str(error))
        return exits.NO_ACCESS
    if summary.unmatched:
        note(f"{summary.unmatched:,} paths do not match the pattern; the columns that it fills are empty for them")
    console.print(f"{summary.rows:,} images, {summary.bytes:,} bytes: {output}", markup=False, soft_wrap=True)
    return exits.COMMITTED
