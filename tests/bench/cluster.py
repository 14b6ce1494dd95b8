"""A night of real images on a cluster: ``python -m tests.bench.cluster --bundle B --images FOLDER [--work FOLDER]``.

FOLDER has images by product and kind of defect, as MVTec AD. They are audited on this machine alone, and then submitted
to a cluster of a head and three nodes on loopback that loses a node after the first shard. Prints images by node and
stage, and whether the two tables are the same.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.jobs.audit.loopback import images_by_pool, submitted, timings
from tests.jobs.audit.tables import published, stable

SHARD_ROWS = 32


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        manifest = work / "manifest.csv"
        count = _write_manifest(asked.images.resolve(), manifest)
        more = ["--shard-rows", str(SHARD_ROWS), "--allow", str(asked.images.resolve()), "--precision", "float32"]
        seconds = _alone(work / "one", manifest, asked.bundle, more)
        print(f"{count} images on one node: {seconds:.0f} s with its start")
        begun = time.monotonic()
        done = submitted(work / "many", str(manifest), asked.bundle, *more, "--extractors", "1", seconds=3600)
        print(done.stdout, end="")
        if done.returncode:
            sys.exit(f"{done.stderr}\nthe submitted audit ended with {done.returncode}")
        print(f"{count} images on three nodes, one killed: {time.monotonic() - begun:.0f} s with the cluster's start")
        for name, node in sorted(timings(work / "many")["nodes"].items()):
            print(f"node {name} ({node['pool']}): {node['images']}")
        print(f"by pool: { {pool: dict(stages) for pool, stages in images_by_pool(work / 'many').items()} }")
        same = stable(published(work / "one")) == stable(published(work / "many"))
        print(f"{count} rows, the same table: {same}")
        sys.exit(0 if same else 1)


def _write_manifest(images: Path, path: Path) -> int:
    found = sorted(one for one in images.glob("*/test/*/*") if one.suffix in (".png", ".jpg"))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "line", "camera"])
        writer.writerows([str(one), f"L{at % 3 + 1}", "top"] for at, one in enumerate(found))
    return len(found)


def _alone(output: Path, manifest: Path, bundle: str, more: list[str]) -> float:
    begun = time.monotonic()
    arguments = ["--manifest", str(manifest), "--bundle", bundle, "--output", str(output), "--run-date", "2026-01-02"]
    subprocess.run([sys.executable, "-m", "jobs", "audit", *arguments, *more], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
