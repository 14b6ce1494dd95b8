"""``--since``: what was new when the manifest was frozen."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from jobs.audit.record import RunFolder, RunRecord, read_record
from jobs.manifest.times import parse_since
from jobs.storage import exists, names, reading
from jobs.uris import join
from manifests.filters import Since

# An object has the time at which its upload began, and clocks differ; so much before the last run is looked at again.
MARGIN = timedelta(days=1)


def resolve_since(text: str, output: str, name: str, local: Path) -> Since | None:
    """The filter that ``--since`` stands for; None if there is no run before, so that everything is new.

    Of last-run: images from a day before the last committed run of this name on, without those that it and the runs
    since then have seen. A run that was told to look at a part only (--limit, --sample) is no last run: the rest would
    never be looked at; but what it has seen is seen. local: folder for the names of the images seen.

    Raises ManifestError, AuditError, StorageAccessError.
    """
    time = parse_since(text)
    if time is not None:
        return Since(time, None)
    runs = _committed(output, name)
    whole = [_began(record) for _, record in runs if not _in_part(record)]
    if not whole:
        return None
    cut = max(whole) - MARGIN
    seen = local / "seen.parquet"
    _write_seen((folder for folder, record in runs if _began(record) >= cut), seen)
    return Since(cut, seen)


def _in_part(record: RunRecord) -> bool:
    left_out = record.frozen.get("left_out", {})  # runs of older versions have none
    return any(left_out.get(name) for name in ("limit", "sample"))


def _began(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record.created_at).astimezone(UTC)


def _committed(output: str, name: str) -> list[tuple[RunFolder, RunRecord]]:
    folders = [RunFolder(output, date, name) for date in names(join(output, "runs"))]

    def look(folder: RunFolder) -> RunRecord | None:
        return read_record(folder) if exists(folder.success) else None

    with ThreadPoolExecutor(16) as pool:
        records = pool.map(look, folders)
        return [(folder, record) for folder, record in zip(folders, records, strict=True) if record is not None]


def _write_seen(folders: Iterable[RunFolder], path: Path) -> None:
    writer = None
    try:
        for folder in folders:
            with reading(folder.results) as file, pq.ParquetFile(file) as table:
                for batch in table.iter_batches(columns=["image_id"]):
                    writer = writer or pq.ParquetWriter(path, batch.schema, compression="lz4")
                    writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
