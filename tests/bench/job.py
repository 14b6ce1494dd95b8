"""The job itself, as a user starts it, and what its processes need meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from jobs.storage import join, read_bytes

# The same in long and short runs, so that what a shard costs is the same in both.
SHARD_ROWS = 64
# Where Ray's object store lies: its file is unlinked, but its pages count.
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Ran:
    """One audit. seconds: of scoring, from the planned run to the last shard. timings: of run.json.

    private, shared: peak bytes of all its processes together, without and within shared memory; 0 if not watched.
    """

    seconds: float
    timings: dict[str, Any]
    private: int
    shared: int
    private_by_kind: dict[str, int]


def audit(
    bundle: Path, manifest: Path | str, output: Path | str, count: int, *options: str, watch: bool = False
) -> Ran:
    """Audit the first ``count`` rows of a manifest into a fresh folder, or prefix of an object store.

    watch: read the memory of its processes twice a second, which takes CPU time from it.
    """
    if isinstance(output, Path):
        shutil.rmtree(output, ignore_errors=True)
    target = str(output) if isinstance(output, Path) else join(output, uuid.uuid4().hex)
    command = [
        sys.executable, "-m", "jobs", "audit", "--manifest", str(manifest), "--bundle", str(bundle),
        "--output", target, "--run-date", "2026-01-01", "--limit", str(count), "--trust-declared",
        "--min-confidence", "0", "--shard-rows", str(SHARD_ROWS), *options,
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        memory: tuple[int, int, dict[str, int]] = (0, 0, {})
        if watch:
            memory = _watch(process)
        process.wait()
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"the audit ended with {process.returncode}: {log.read()[-2000:]}")
    record = json.loads(read_bytes(join(target, "runs", "2026-01-01", "audit", "run.json")))
    return Ran(record["timings"]["score_seconds"], record["timings"], *memory)


def further_images(
    bundle: Path,
    manifest: Path | str,
    output: Path | str,
    few: int,
    many: int,
    repeats: int,
    *variants: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Images/s of the images from ``few`` to ``many``: what a further image costs, without start and end of the job.

    The variants (further options) take turns; medians over the repeats.
    """
    found: list[list[tuple[Ran, Ran]]] = [[] for _ in variants]
    for _ in range(repeats):
        for variant, runs in zip(variants, found, strict=True):
            runs.append(
                (audit(bundle, manifest, output, few, *variant), audit(bundle, manifest, output, many, *variant))
            )
    results = []
    for runs in found:
        rates = [(many - few) / (long.seconds - short.seconds) for short, long in runs]
        results.append(
            {
                "images_per_second": median(rates),
                "all": [round(rate, 2) for rate in rates],
                "with_start_and_end": median(many / long.seconds for _, long in runs),
                "cpu_ms_per_image": _marginal_cpu(runs[-1], few, many),
                "limiting": runs[-1][1].timings["limiting"],
            }
        )
    return results


def _marginal_cpu(runs: tuple[Ran, Ran], few: int, many: int) -> dict[str, float]:
    short, long = (ran.timings["stages"] for ran in runs)
    return {
        stage: round(1000 * (long[stage]["cpu_seconds"] - short[stage]["cpu_seconds"]) / (many - few), 2)
        for stage in long
    }


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, int, dict[str, int]]:
    """Peak private and shared bytes while a process and its children run."""
    private = shared = 0
    before = shutil.disk_usage(SHARED_MEMORY).used
    kinds: Counter[str] = Counter()
    while process.poll() is None:
        now: Counter[str] = Counter()
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for one in family:
            try:
                memory, name = one.memory_info(), _kind(one)
            except psutil.Error:  # it ended meanwhile
                continue
            now[name] += memory.rss - memory.shared
        private = max(private, sum(now.values()))
        shared = max(shared, shutil.disk_usage(SHARED_MEMORY).used - before)
        kinds |= now
        time.sleep(0.5)
    return private, shared, dict(kinds)


def _kind(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    if "Extract" in line:
        return "extract"
    if line.startswith(("ray::MapBatches", "ray::IDLE")):
        return "load, write and idle"
    if line.startswith("ray::Scorer"):
        return "score"
    if "raylet/raylet" in line:
        return "raylet"
    return "driver" if "jobs audit" in line or "-m jobs" in line else "the rest of Ray"
