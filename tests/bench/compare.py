"""Comparing long runs: ``python -m tests.bench.compare [--rows N ...] [--work FOLDER]``; seconds and peak memory.

The same images scored twice, and two nights, both with a page. A process for each comparison, for its memory. CPU
seconds too, because other work on the machine makes the wall clock lie.
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

import psutil

from tests.bench.scale import _forget, _peak
from tests.nights import Night, write_night


def measure(a: str, b: str, page: str) -> dict[str, Any]:
    """Of one comparison, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.compare", "--compare", a, b, page]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _compare(a: str, b: str, page: str) -> None:
    from jobs.compare.page import page as page_of
    from jobs.compare.run import Settings, compare
    from jobs.storage import write_bytes

    before = psutil.Process().memory_info().rss
    _forget()
    start, spent = time.perf_counter(), time.process_time()
    found = compare(Settings(a, b, drawn=True))
    write_bytes(page, page_of(found).encode())
    print(
        json.dumps(
            {
                "question": found.question,
                "shared": found.shared,
                "seconds": round(time.perf_counter() - start, 2),
                "cpu_seconds": round(time.process_time() - spent, 2),
                "before_mib": before // 2**20,
                "peak_mib": _peak() // 2**20,
                "page_mib": round(Path(page).stat().st_size / 2**20, 1),
            }
        )
    )


def both(rows: int, work: Path) -> list[dict[str, Any]]:
    """The same images twice, and two nights, of so many rows each."""
    output = str(work / "output")
    night = write_night(output, Night("2026-03-01", rows=rows))[0].uri
    again = write_night(output, Night("2026-03-01", "again", rows=rows, seed=1))[0].uri
    next_one = write_night(output, Night("2026-03-02", rows=rows, louder={"L3": 1.02}))[0].uri
    return [measure(night, other, str(work / "page.html")) | {"rows": rows} for other in (again, next_one)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--work", type=Path, help="where the runs are written (default: a temporary folder)")
    parser.add_argument("--compare", nargs=3, metavar=("A", "B", "PAGE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.compare:
        _compare(*asked.compare)
        return
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(dir=asked.work) as work:
            for found in both(rows, Path(work)):
                print(found, flush=True)


if __name__ == "__main__":
    main()
