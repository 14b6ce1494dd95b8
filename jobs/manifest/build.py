"""``line-audit manifest build``: one Parquet manifest of what lies below a prefix, or of manifests of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.manifest.listings import list_images
from jobs.manifest.names import parquet_name
from jobs.manifest.sources import SourceOptions, is_listed, open_sources
from jobs.manifest.write import Written, write_manifest
from jobs.storage import scratch, upload
from jobs.uris import normal
from manifests.filters import Filters


@dataclass(frozen=True)
class Built:
    """written: what is in the manifest and what is not. unmatched: paths that the pattern does not fit."""

    written: Written
    unmatched: int


def build_manifest(
    sources: Sequence[str], output: str, options: SourceOptions | None = None, filters: Filters | None = None
) -> Built:
    """Write the manifest ``output`` whole or not at all. sources: whatever an audit takes.

    Raises ManifestError if there are no images or they cannot be read as asked, StorageAccessError.
    """
    options, filters = options or SourceOptions(), filters or Filters()
    target, sources = parquet_name(output), [normal(source) for source in sources]
    with scratch() as local:
        path = local / "manifest"
        if len(sources) == 1 and filters == Filters() and is_listed(sources[0], options):
            summary = list_images(sources[0], options.pattern, path)
            built = Built(Written(summary.rows, 0, None, {}, summary.bytes), summary.unmatched)
        else:
            built = _rewritten(sources, options, filters, path, local)
        upload(path, target)
    return built


def _rewritten(sources: Sequence[str], options: SourceOptions, filters: Filters, path: Path, local: Path) -> Built:
    source = open_sources(sources, options, local)
    with source.read() as reader:
        written = write_manifest(reader, source.name, filters, path, local)
    written = replace(written, left_out=written.left_out | source.passed_over())
    return Built(written, sum(one.unmatched for one in source.inventories))
