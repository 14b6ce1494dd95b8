"""A large night without its images: ``python -m tests.bench.night [--rows N ...] [--shard-rows N] [--work FOLDER]``.

The real driver, planner, writer, commit and report, on the real chain, with the stages from load to score replaced by
stubs that return at once: what is left is what a night costs whatever the models cost, and shows what grows with the
manifest. A process for each length, for its memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from tests.bench.freezing import write_manifest
from tests.bench.scale import _forget, _peak

CATEGORIES = ("bottle", "pill", "screw")
THRESHOLD = 0.7
LOOK_SECONDS = 1.0


def load_stub(descriptor: pa.Table, settings: Any, registry: Any) -> pa.Table:
    """A shard's manifest rows as the loader gives them, without a picture. settings, registry: of the real one."""
    import ray

    from jobs.audit.figures import Meter
    from jobs.audit.load import LOADED
    from jobs.storage import reading
    from jobs.uris import join
    from manifests.freeze import read_shard

    (shard,) = descriptor.to_pylist()
    meter = Meter()
    ray.get(registry.begin.remote(shard["shard"]))
    with reading(join(settings.manifest_uri, shard["part"])) as file:
        rows = read_shard(file, shard["row_group"])
    codes = rows["problem_code"].combine_chunks()
    stages = pa.compute.if_else(codes.is_valid(), "manifest", pa.scalar(None, pa.string()))
    known: dict[str, Any] = {
        "error_stage": stages, "error_code": codes, "error_message": rows["problem_message"],
        "attempts": pa.array(np.ones(len(rows), np.int32)),
        "width": pa.array(np.full(len(rows), 900, np.int32)), "height": pa.array(np.full(len(rows), 900, np.int32)),
    }  # fmt: skip
    for field in LOADED:
        rows = rows.append_column(field, known.get(field.name, pa.nulls(len(rows), field.type)))
    registry.spent.remote("load", meter.read(len(rows)))
    return rows


class ExtractStub:
    """Decides rows from scores drawn by the shard's number. Arguments are those of the real one."""

    def __init__(self, settings: Any, registry: Any):
        self.registry = registry

    def __call__(self, table: pa.Table) -> pa.Table:
        """One shard in, the same shard with scores out."""
        from jobs.audit.extract import DECIDED
        from jobs.audit.figures import Meter

        meter, count = Meter(), len(table)
        failed = np.array(table["error_stage"].is_valid())
        score = np.random.default_rng(table["shard"][0].as_py()).gamma(16.0, 0.025, count)
        category = np.array(CATEGORIES)[np.arange(count) % len(CATEGORIES)]
        decision = np.where(failed, "failed", np.where(score >= THRESHOLD, "anomalous", "normal"))
        error_map = np.repeat(score, 784).astype(np.float16)
        columns = {
            "category": category, "category_confidence": np.full(count, 0.99, np.float32), "score": score,
            "threshold": np.full(count, THRESHOLD), "margin": score / THRESHOLD, "p_value": np.full(count, 0.5),
            "peak_x": np.full(count, 450, np.float32), "peak_y": np.full(count, 450, np.float32),
        }  # fmt: skip
        for field in DECIDED:
            if field.name == "decision":
                values: pa.Array = pa.array(decision)
            elif field.name == "error_map":
                values = pa.FixedSizeListArray.from_arrays(pa.array(error_map), 784, mask=pa.array(failed))
            elif field.name in columns:
                values = pa.array(columns[field.name], field.type, mask=failed)
            else:
                values = pa.nulls(count, field.type)
            table = table.append_column(field, values)
        self.registry.spent.remote("extract", meter.read(count))
        return table


def measure(rows: int, shard_rows: int | None, work: Path) -> dict[str, Any]:
    """Of one night, in this process, which is its driver."""
    import ray

    from jobs.audit import stages
    from jobs.audit.config import AuditConfig
    from jobs.audit.run import audit
    from jobs.audit.watcher import Watcher
    from tests.bundles import write_random_bundle

    write_manifest(work / "manifest.parquet", rows)
    bundle = write_random_bundle(work / "bundle", categories=CATEGORIES, threshold=THRESHOLD)
    stages.load_shard, stages.Extract = load_stub, ExtractStub  # type: ignore[misc, assignment]
    config = AuditConfig(
        manifest=str(work / "manifest.parquet"), bundle=str(bundle), output=str(work / "out"), run_date="2026-01-01",
        allow=("s3://plant-archive/",), heatmaps="none", scoring="extractor", shard_rows=shard_rows,
    )  # fmt: skip
    peaks = {"driver": 0, "store": 0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if ray.is_initialized():
                whole, free = ray.cluster_resources(), ray.available_resources()
                used = whole.get("object_store_memory", 0) - free.get("object_store_memory", 0)
                peaks["store"] = max(peaks["store"], int(used))

    before = psutil.Process().memory_info().rss
    _forget()
    threading.Thread(target=look, daemon=True).start()
    began, spent = time.monotonic(), time.process_time()
    outcome = audit(config, Watcher(said=lambda text: print(text, file=sys.stderr)))
    over.set()
    timings, record, folder = outcome.record.timings, outcome.record, Path(work / "out/runs/2026-01-01/audit")
    assert record.counts["rows"] == rows
    shards = len(list((folder / "shards").iterdir()))
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return {
        "rows": rows, "shards": shards, "seconds": round(time.monotonic() - began, 1),
        "driver_cpu_seconds": round(time.process_time() - spent, 1), "plan_seconds": timings["plan_seconds"],
        "chain_seconds": timings["score_seconds"],
        "ms_a_shard": round(1000 * timings["score_seconds"] / shards, 1),
        "commit_seconds": timings["commit_seconds"], "report_seconds": timings["report_seconds"],
        "stage_cpu_ms_a_shard": {
            stage: round(1000 * one["cpu_seconds"] / shards, 1) for stage, one in timings["stages"].items()
        },
        "driver_before_mib": before >> 20, "driver_peak_mib": _peak() >> 20,
        "object_store_peak_mib": peaks["store"] >> 20,
        "published_mib": Path(record.results).stat().st_size >> 20,
        "shards_mib": sum(path.stat().st_size for path in (folder / "shards").iterdir()) >> 20,
        "run_json_kib": sizes["run.json"] >> 10, "digests_kib": sizes["digests.parquet"] >> 10,
        "report_kib": sizes["report.html"] >> 10, "exit_code": outcome.code,
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--shard-rows", type=int, help="rows a shard at most (default: the audit's)")
    parser.add_argument("--work", type=Path, help="folder with room for 3 kB a row (default: a new one)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.shard_rows, asked.work)))
        return
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(prefix="night-", dir=asked.work) as folder:
            command = [sys.executable, "-m", "tests.bench.night", "--one", str(rows), "--work", folder]
            command += ["--shard-rows", str(asked.shard_rows)] if asked.shard_rows else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
