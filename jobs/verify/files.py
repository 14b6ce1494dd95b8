"""The files of a run against the digests in run.json: frozen manifest, published table, shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.audit.record import FileDigest, RunFolder, RunRecord, shard_name
from jobs.audit.shards import missing_shards
from jobs.storage import download, read_bytes
from jobs.uris import is_local, join, path_of
from jobs.verify.check import EXAMPLES, Check, named
from manifests.freeze import FrozenManifest
from manifests.frozen import parts_digest

THREADS = 16
SHARDS_AT_ONCE = 1024


def at_hand(uri: str, target: Path) -> Path:
    """A file as ``target`` on this machine: downloaded, or a link. Raises FileNotFoundError, StorageAccessError."""
    if is_local(uri):
        target.symlink_to(Path(path_of(uri)).resolve(strict=True))
    else:
        download(uri, target)
    return target


def manifest_files(folder: RunFolder, frozen: FrozenManifest, local: Path) -> tuple[Check, list[Path]]:
    """The frozen manifest's parts against its digest, and where they are at hand."""
    paths, found, absent = [], [], []
    for part in frozen.parts:
        try:
            path = at_hand(join(folder.manifest, part), local / part)
        except FileNotFoundError:
            absent.append(part)
            continue
        paths.append(path)
        found.append((part, FileDigest.of(path).sha256))
    name = "frozen manifest"
    if absent:
        said = f"{named(len(absent), 'file')} of {len(frozen.parts)} not there"
        return Check(name, "failed", said, tuple(absent[:EXAMPLES])), paths
    if parts_digest(found) != frozen.digest:
        return Check(name, "failed", f"not the {named(len(paths), 'file')} that run.json is bound to"), paths
    return Check(name, "ok", f"{named(len(paths), 'file')}, digest {frozen.digest[:12]}"), paths


def table_file(record: RunRecord, path: Path) -> Check:
    """The published table against its SHA-256. Raises FileNotFoundError."""
    found, name = FileDigest.of(path), "table"
    if record.published is None:
        return Check(name, "not checked", "its digest was not recorded: the run is of an older version")
    if found != record.published.table:
        return Check(name, "failed", f"changed since it was published: {_differs(record.published.table, found)}")
    return Check(name, "ok", f"{found.size:,} bytes, SHA-256 {found.sha256[:12]}")


def shard_files(folder: RunFolder, record: RunRecord, frozen: FrozenManifest, local: Path) -> Check:
    """The shard files against the list of their digests, or where there is none against their own footers."""
    name, planned = "shards", len(frozen.shards)
    planned += sum(len(FrozenManifest.from_dict(retry["frozen"]).shards) for retry in record.retries)
    if record.published is None:
        absent = [shard_name(index) for index in missing_shards(folder, record, frozen)]
        if absent:
            said = f"{named(len(absent), 'file')} of {planned} not there, or not of this run"
            return Check(name, "failed", said, tuple(absent[:EXAMPLES]))
        return Check(name, "not checked", "there, but their digests were not recorded: the run is of an older version")
    listed = at_hand(folder.digests, local / "digests.parquet")
    if (found := FileDigest.of(listed)) != record.published.digests:
        said = f"their list of digests was changed: {_differs(record.published.digests, found)}"
        return Check(name, "failed", said, (folder.digests,))
    bad, count = 0, 0
    examples: list[str] = []
    with pq.ParquetFile(listed) as file, ThreadPoolExecutor(THREADS) as pool:
        for rows in _lots(file):
            for row, problem in zip(rows, pool.map(lambda row: _problem(folder, row), rows), strict=True):
                count += 1
                if problem is not None:
                    bad += 1
                    examples.append(f"{row['file']}: {problem}")
                    del examples[EXAMPLES:]
    if bad:
        return Check(name, "failed", f"{named(bad, 'file')} of {count:,} do not hold", tuple(examples))
    if count < planned:
        return Check(name, "failed", f"{count:,} are listed, {planned:,} were planned")
    return Check(name, "ok", f"{named(count, 'file')}, as written")


def _lots(file: pq.ParquetFile) -> Iterator[list[dict[str, Any]]]:
    rows: Iterable[Any] = (row for batch in file.iter_batches(batch_size=SHARDS_AT_ONCE) for row in batch.to_pylist())
    remaining = iter(rows)
    while lot := list(islice(remaining, SHARDS_AT_ONCE)):
        yield lot


def _problem(folder: RunFolder, row: dict[str, Any]) -> str | None:
    try:
        data = read_bytes(join(folder.uri, row["file"]))
    except FileNotFoundError:
        return "not there"
    wanted = FileDigest(size=row["size"], sha256=row["sha256"])
    found = FileDigest(size=len(data), sha256=sha256(data).hexdigest())
    return None if found == wanted else _differs(wanted, found)


def _differs(wanted: FileDigest, found: FileDigest) -> str:
    if wanted.size != found.size:
        return f"{found.size:,} bytes, {wanted.size:,} were written"
    return f"SHA-256 {found.sha256[:12]}, {wanted.sha256[:12]} was written"
