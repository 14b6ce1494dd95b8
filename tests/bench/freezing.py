"""Freezing long manifests: ``python -m tests.bench.freezing [--rows N ...] [--work FOLDER]``; seconds and peak memory.

A process for each length, for its memory. CPU seconds too, because other work on the machine makes the wall clock lie.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench.scale import _forget, _peak

BATCH = 100_000
TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("uri", pa.string()), ("etag", pa.string()), ("size", pa.int64()), ("last_modified", TIME),
        ("captured_at", TIME), ("line", pa.string()), ("camera", pa.string()), ("order", pa.string()),
        ("temperature", pa.float64()),
    ]
)  # fmt: skip


def write_manifest(path: Path, rows: int) -> None:
    """A manifest as a listing of S3 is, in the order of the keys, with two further columns; a row in 1,000 is a
    duplicate."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, BATCH):
            index = np.arange(start, min(start + BATCH, rows))
            named = np.where(index % 1000 == 999, index - 999, index)
            line, camera = named * 8 // rows, named * 64 // rows % 8
            digits = pc.utf8_lpad(pa.array(named).cast(pa.string()), 9, "0")
            taken = pa.array(1_750_000_000_000_000 + named * 8_640, TIME)
            lines = pc.binary_join_element_wise("line-", pa.array(line).cast(pa.string()), "")
            cameras = pc.binary_join_element_wise("camera-", pa.array(camera).cast(pa.string()), "")
            key = pc.binary_join_element_wise("s3://plant-archive/images", lines, cameras, digits, "/")
            columns = [
                pc.binary_join_element_wise(key, "png", "."),
                pa.array([f"{value * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" for value in named.tolist()]),
                pa.array(400_000 + named * 7919 % 100_000), taken, taken, lines, cameras,
                pc.binary_join_element_wise("A-", pa.array(named // 50).cast(pa.string()), ""),
                pa.array(20 + named * 31 % 977 / 100),
            ]  # fmt: skip
            writer.write_table(pa.table(columns, schema=SCHEMA))


def measure(rows: int, work: Path) -> dict[str, Any]:
    """Of one manifest, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.freezing", "--one", str(rows), "--work", str(work)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _measure_here(rows: int, work: Path) -> dict[str, Any]:
    from manifests.freeze import freeze_file

    write_manifest(work / "manifest.parquet", rows)
    _forget()
    before, began, spent = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    frozen = freeze_file(work / "manifest.parquet", work / "frozen")
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    assert (frozen.rows, frozen.problems) == (rows, {"duplicate": rows // 1000})
    return {
        "rows": rows, "shards": len(frozen.shards), "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
        "before_mib": before >> 20, "peak_mib": _peak() >> 20, "digest": frozen.digest[:12],
        "manifest_mib": (work / "manifest.parquet").stat().st_size >> 20,
        "frozen_mib": sum((work / "frozen" / part).stat().st_size for part in frozen.parts) >> 20,
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--work", type=Path, help="folder with room for three times the manifest (default: a new one)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(_measure_here(asked.one, asked.work)))
        return
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(prefix="freezing-", dir=asked.work) as folder:
            print(json.dumps(measure(rows, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
