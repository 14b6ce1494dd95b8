"""Freeze, plan and commit of long manifests, whose shards are written by a stub. One size a process, for its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

CATEGORIES, LINES = ("bottle", "pill", "screw"), ("L1", "L2", "L3", "L4")


def long_manifest(work: Path, rows: int) -> dict[str, float]:
    """Seconds and peak memory for a manifest of so many rows."""
    command = [sys.executable, "-m", "tests.bench.scale", str(work), str(rows)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def _manifest(path: Path, rows: int) -> None:
    indices = np.arange(rows)
    with pq.ParquetWriter(
        path, pa.schema([("uri", pa.string()), ("line", pa.string()), ("captured_at", pa.timestamp("us", tz="UTC"))])
    ) as writer:
        for start in range(0, rows, 100_000):
            part = indices[start : start + 100_000]
            writer.write_table(
                pa.table(
                    {
                        "uri": [f"s3://archive/{i % 97:02d}/{i:09d}.png" for i in part],
                        "line": [LINES[i % len(LINES)] for i in part],
                        "captured_at": pa.array(part * 1_000_000, pa.timestamp("us", tz="UTC")),
                    },
                    schema=writer.schema,
                )
            )


def _stub(folder: Any, frozen: Any, record: Any) -> None:
    """Shard files as the chain writes them, with random scores."""
    from jobs.audit.record import shard_name
    from jobs.audit.results import file_metadata, shard_schema
    from jobs.audit.write import parquet_bytes
    from jobs.storage import write_bytes
    from jobs.uris import join
    from manifests.freeze import read_shard

    schema = shard_schema(frozen.extras)
    generator = np.random.default_rng(0)
    for shard in frozen.shards:
        rows = read_shard(Path(folder.manifest) / shard.part, shard.row_group)
        count = len(rows)
        score = generator.gamma(4.0, 0.02, count)
        columns: dict[str, Any] = {name: rows[name] for name in schema.names if name in rows.column_names}
        columns |= {
            "status": ["scored"] * count,
            "attempts": np.ones(count, np.int32),
            "category": [CATEGORIES[i % 3] for i in range(count)],
            "score": score,
            "threshold": np.full(count, 0.15),
            "margin": score / 0.15,
            "decision": np.where(score >= 0.15, "anomalous", "normal"),
            "run_id": [record.run_id] * count,
            "bundle_digest": ["b" * 64] * count,
            "scored_at": [datetime.now(UTC)] * count,
        }
        arrays = [
            columns[field.name].combine_chunks().cast(field.type)
            if isinstance(columns.get(field.name), pa.ChunkedArray)
            else pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in schema
        ]
        metadata = file_metadata(record.run_id, record.fingerprint, "b" * 64, shard.index)
        data = parquet_bytes(pa.Table.from_arrays(arrays, schema=schema), metadata)
        write_bytes(join(folder.shards, shard_name(shard.index)), data)


def _peak() -> int:
    """Peak bytes of this process since ``_forget``. Not ru_maxrss, which begins with the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM: this benchmark needs Linux")


def _forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """See the module: WORK ROWS."""
    from jobs.audit.commit import commit
    from jobs.audit.record import RunFolder, RunRecord
    from jobs.audit.shards import missing_shards
    from jobs.storage import upload
    from jobs.uris import join
    from manifests.freeze import freeze_file

    work, rows = Path(sys.argv[1]), int(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    _manifest(work / "manifest.parquet", rows)
    before = psutil.Process().memory_info().rss
    _forget()
    folder = RunFolder(str(work / "out"), "2026-01-01", "audit")
    start = time.perf_counter()
    frozen = freeze_file(work / "manifest.parquet", work / "frozen")
    for part in sorted((work / "frozen").iterdir()):
        upload(part, join(folder.manifest, part.name))
    froze = time.perf_counter()
    record = RunRecord(
        run_id=folder.run_id, manifest="m", source_sha256=frozen.source_sha256, bundle="b", device="cpu",
        fingerprint="f", parts={"bundle": "b" * 64}, frozen=frozen.to_dict(), results=folder.results, created_at="",
    )  # fmt: skip
    freezing = _peak()
    _stub(folder, frozen, record)
    _forget()
    planned = time.perf_counter()
    assert missing_shards(folder, record, frozen) == ()
    committing = time.perf_counter()
    counts = commit(folder, record, frozen, ours=lambda: None)
    end = time.perf_counter()
    assert counts["rows"] == rows
    print(
        json.dumps(
            {
                "rows": rows, "freeze_seconds": round(froze - start, 2), "plan_seconds": round(committing - planned, 2),
                "commit_seconds": round(end - committing, 2), "memory_before": before, "memory_freeze": freezing,
                "memory_commit": _peak(),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
