"""``line-audit manifest build``: one Parquet manifest of what lies below a prefix, or of manifests of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.manifest.listings import list_images
from jobs.manifest.names import parquet_name
from jobs.manifest.sources import SourceOptions, is_listed, open_sources
from jobs.manifest.write import Written, write_manifest
from jobs.storage import scratch, upload
from jobs.uris import normal
from manifests.filters import Filters
from manifests.schema import ManifestError


@dataclass(frozen=True)
class Built:
    """written: what is in the manifest and what is not. unmatched: paths that the pattern does not fit. bytes: of the
    images together, None if not all are known."""

    written: Written
    unmatched: int
    bytes: int | None


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
            built = Built(Written(summary.rows, 0, None, {}), summary.unmatched, summary.bytes)
        else:
            built = _rewritten(sources, options, filters, path, local)
        upload(path, target)
    return built


def _rewritten(sources: Sequence[str], options: SourceOptions, filters: Filters, path: Path, local: Path) -> Built:
    copies = local / "sources"
    copies.mkdir()
    source = open_sources(sources, options, copies)
    try:
        written = write_manifest(source.reader, source.name, filters, path, local)
    except ManifestError as error:
        raise ManifestError(source.told(error)) from error
    written.left_out |= source.passed_over()
    return Built(written, sum(one.unmatched for one in source.inventories), _bytes(path))


def _bytes(path: Path) -> int | None:
    with pq.ParquetFile(path) as file:
        if "size" not in file.schema_arrow.names:
            return None
        total = 0
        for batch in file.iter_batches(columns=["size"]):
            if batch["size"].null_count:
                return None
            total += pc.sum(batch["size"]).as_py() or 0
    return total
