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
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

import psutil

from jobs.listing import listing
from jobs.machine import cores
from jobs.storage import read_bytes
from jobs.uris import is_local, join

SHARD_ROWS = 64
BETWEEN_PAUSES = 12.0
# Where Ray's object store lies: its file is unlinked, but its pages count.
SHARED_MEMORY = "/dev/shm"
_LOADING = "load, write and idle"


@dataclass(frozen=True)
class Ran:
    """One audit.

    seconds: of scoring, without pauses. progress: shards that arrived. timings: of run.json. private, shared: peak
    bytes of all its processes together, without and within shared memory; 0 if not watched.
    """

    images: int
    seconds: float
    progress: list[Arrival]
    timings: dict[str, Any]
    private: int = 0
    shared: int = 0
    private_by_kind: dict[str, int] = field(default_factory=dict)

    def steady(self) -> float:
        """Images/s in the middle of the run. Raises ValueError if it has none."""
        return steady(self.progress, self.images, self.timings)

    def detail(self) -> dict[str, Any]:
        """For the report."""
        return {
            "images_per_second": round(self.steady(), 2),
            "with_start_and_end": round(self.images / self.seconds, 2),
            "cpu_ms_per_image": {name: one["cpu_ms_per_image"] for name, one in self.timings["stages"].items()},
        }


@dataclass(frozen=True)
class Arrival:
    """So many shards are there, after so many seconds without pauses and so many CPU seconds of loading and writing."""

    shards: int
    seconds: float
    loading: float


def audit(
    bundle: Path,
    manifest: Path | str,
    output: Path | str,
    count: int,
    *options: str,
    watch: bool = False,
    pause: Callable[[], object] | None = None,
) -> Ran:
    """Audit the first ``count`` rows of a manifest into a fresh folder, or prefix of an object store.

    watch: read the memory of its processes twice a second, which takes CPU time from it.
    pause: what to do, again and again, while all its processes are stopped.
    """
    if isinstance(output, Path):
        shutil.rmtree(output, ignore_errors=True)
    target = str(output) if isinstance(output, Path) else join(output, uuid.uuid4().hex)
    command = [
        sys.executable, "-m", "jobs", "audit", "--manifest", str(manifest), "--bundle", str(bundle),
        "--output", target, "--run-date", "2026-01-01", "--limit", str(count), "--trust-declared",
        "--min-confidence", "0", "--shard-rows", str(SHARD_ROWS), *options,
    ]  # fmt: skip
    run = join(target, "runs", "2026-01-01", "audit")
    memory: tuple[int, int, dict[str, int]] = (0, 0, {})
    progress, paused = list[Arrival](), 0.0
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            if watch:
                memory = _watch(process)
            else:
                progress, paused = _follow(process, join(run, "shards"), -(-count // SHARD_ROWS), pause)
            process.wait()
        except BaseException:
            _each(_stop(psutil.Process(process.pid)), psutil.Process.kill)
            process.wait()
            raise
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"the audit ended with {process.returncode}: {log.read()[-2000:]}")
    timings = json.loads(read_bytes(join(run, "run.json")))["timings"]
    return Ran(count, timings["score_seconds"] - paused, progress, timings, *memory)


def steady(progress: list[Arrival], images: int, timings: dict[str, Any]) -> float:
    """Images/s, by least squares over the shards that arrive while as much is loaded as is written.

    That is not so at the start, when shards are loaded ahead, and at the end, when nothing is left to load. Should less
    be loaded in between than an image costs, the rest is added. Raises ValueError if too few shards lie between.
    """
    at_once = timings["machine"]["extracted_at_once"]
    ahead = 2 * at_once
    planned = -(-images // SHARD_ROWS)
    middle = [one for one in progress if ahead <= one.shards <= planned - 2 * ahead]
    if len(middle) < 3 or middle[-1].shards - middle[0].shards < max(3, 2 * at_once):
        raise ValueError(f"{images} images are too few for a steady state: {enough(at_once)} are enough")
    shards = [one.shards for one in middle]
    seconds = linear_regression(shards, [one.seconds for one in middle]).slope * planned / images
    loaded = linear_regression(shards, [one.loading for one in middle]).slope * planned / images
    due = sum(timings["stages"][stage]["cpu_seconds"] for stage in ("load", "write")) / images
    return 1 / (seconds + max(0.0, due - loaded) / cores())


def enough(extracted_at_once: int) -> int:
    """Images that have a steady state, where so many shards are extracted at once: in the middle, three times as many
    shards, which may come in waves, and twelve at least."""
    return (6 * extracted_at_once + max(12, 3 * extracted_at_once)) * SHARD_ROWS


def in_turns(repeats: int, *runs: Callable[[], Ran]) -> list[list[Ran]]:
    """The runs one after the other, again and again; each one's results."""
    rounds = [[run() for run in runs] for _ in range(repeats)]
    return [list(column) for column in zip(*rounds, strict=True)]


def _follow(
    process: subprocess.Popen[bytes], shards: str, planned: int, pause: Callable[[], object] | None
) -> tuple[list[Arrival], float]:
    """Watch the shards of a job arrive; stop it with all its processes every few seconds while it scores.

    Returns the arrivals and the seconds that it was stopped.
    """
    progress, paused, due = list[Arrival](), 0.0, 0.0
    job, start = psutil.Process(process.pid), time.monotonic()
    while process.poll() is None:
        time.sleep(0.2 if is_local(shards) else 1.0)
        there = sum(entry.relative_path.endswith(".parquet") for entry in listing(shards))
        now = time.monotonic() - start - paused
        if there > (progress[-1].shards if progress else 0):
            progress.append(Arrival(there, now, _loading(job)))
        if pause is not None and 0 < there < planned - 1 and now >= due:
            family = _stop(job)
            before = time.monotonic()
            try:
                pause()
            finally:
                paused += time.monotonic() - before
                _each(family, psutil.Process.resume)
            due = now + BETWEEN_PAUSES
    return progress, paused


def _loading(job: psutil.Process) -> float:
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        for one in job.children(recursive=True):
            with suppress(psutil.Error):
                if _kind(one) == _LOADING:
                    seconds += sum(one.cpu_times()[:2])
    return seconds


def _stop(job: psutil.Process) -> list[psutil.Process]:
    family: list[psutil.Process] = []
    while new := [one for one in (job, *job.children(recursive=True)) if one not in family]:
        _each(new, psutil.Process.suspend)
        family += new
    return family


def _each(processes: Iterable[psutil.Process], function: Callable[[psutil.Process], object]) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            function(one)


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
        return _LOADING
    if line.startswith("ray::Scorer"):
        return "score"
    if "raylet/raylet" in line:
        return "raylet"
    return "driver" if "jobs audit" in line or "-m jobs" in line else "the rest of Ray"
