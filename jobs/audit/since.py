"""``--since``: what was new when the manifest was frozen."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.audit.committed import committed_runs
from jobs.audit.config import AuditConfig
from jobs.audit.exits import USAGE, AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.manifest.sources import Source
from jobs.manifest.times import parse_since
from jobs.storage import reading
from manifests.filters import Since

# An object has the time at which its upload began, and clocks differ; so much before the last run is looked at again.
MARGIN = timedelta(days=1)
_TIME = "last_modified"
_SEEN = pa.schema([pa.field("image_id", pa.string())])


def resolve_since(config: AuditConfig, source: Source, local: Path) -> Since | None:
    """The filter that ``--since`` stands for; None without it, or if there is no run before: everything is new then.

    Of last-run: images that no committed run of this name has seen. Of what an object store lists the time tells too:
    see ``_cut``; then only the runs since that time are asked. Elsewhere it does not: an image may come days after it
    was taken, or be copied with the time of its file. A row that a run could not read has not been seen. local: folder
    for the names of the images seen.

    Raises ManifestError, AuditError, StorageAccessError.
    """
    if config.since is None:
        return None
    time = parse_since(config.since)
    if time is not None:
        return Since(time)
    runs = committed_runs(config.output, config.name)
    if not runs:
        return None
    cut = _cut(config, runs) if source.lists and _TIME in source.reader.schema_extras.names else None
    seen = local / "seen.parquet"
    _write_seen((folder for folder, record in runs if cut is None or _began(record) >= cut), seen)
    return Since(cut, seen)


def _cut(config: AuditConfig, runs: list[tuple[RunFolder, RunRecord]]) -> datetime | None:
    """A day before the newest object that the last run has seen: what it was given may have been listed long before it
    began, as inventories are. None if no run can tell."""
    whole = [(_began(record), folder) for folder, record in runs if _is_whole(config, record)]
    if not whole:
        return None
    began, folder = max(whole, key=lambda one: one[0])
    newest = _newest(folder)
    return None if newest is None else min(began, newest) - MARGIN


def _is_whole(config: AuditConfig, record: RunRecord) -> bool:
    """Whether a run has looked at all that would have been asked for now. The rest would never be looked at."""
    then = record.parts.get("settings", {})
    sources = (record.manifest, *then.get("also", ())), then.get("pattern")
    if sources != (config.manifests, config.pattern) or then.get("where") not in (None, config.where):
        return False
    left_out = record.frozen.get("left_out")
    if left_out is None:  # of older versions, which do not tell whether a limit left out anything
        return then.get("limit") is None
    return not any(left_out.get(name) for name in ("limit", "sample"))


def _began(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record.created_at).astimezone(UTC)


def _newest(folder: RunFolder) -> datetime | None:
    newest = None
    for batch in _results(folder, [_TIME]):
        found = pc.max(batch[_TIME]).as_py() if _TIME in batch.schema.names else None
        newest = found if newest is None or (found is not None and found > newest) else newest
    return newest


def _write_seen(folders: Iterable[RunFolder], path: Path) -> None:
    with pq.ParquetWriter(path, _SEEN, compression="lz4") as writer:
        for folder in folders:
            for batch in _results(folder, ["image_id", "error_stage"]):
                # A row that could not be read may be read the next time, under the same name.
                kept = pc.fill_null(pc.not_equal(batch["error_stage"], "manifest"), True)
                writer.write_batch(pa.RecordBatch.from_arrays([batch["image_id"].filter(kept)], schema=_SEEN))


def _results(folder: RunFolder, columns: list[str]) -> Iterable[pa.RecordBatch]:
    try:
        with reading(folder.results) as file, pq.ParquetFile(file) as table:
            there = [name for name in columns if name in table.schema_arrow.names]
            yield from table.iter_batches(columns=there)
    except FileNotFoundError as error:
        raise AuditError(
            USAGE,
            f"{folder.results}: the results of run {folder.run_id} are gone, so what it has seen is not known; put "
            f"them back, remove the run's folder {folder.uri} to audit its images again, or give --since a time",
        ) from error
