"""The morning report of a long night: ``python -m tests.bench.report [--rows N] [--nights N] [--work FOLDER]``.

Seconds, CPU seconds, peak memory and sizes: with the numbers of the earlier nights in their report.json, and again with
none of them, so that all their tables are read. A process for each, for its memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil

from tests.bench.scale import _forget, _peak

FIRST = date(2026, 1, 1)
PICTURES = 300


def write_nights(work: Path, rows: int, nights: int) -> None:
    """The earlier nights are one night's table under many names: what it holds is not the question here."""
    from jobs.audit.record import RunFolder
    from jobs.report.make import make_report, write_report
    from jobs.storage import copy
    from tests.jobs.report.bundle import write_bundle_description
    from tests.nights import Night, write_night

    bundle = str(work / "bundle")
    settings = {"rows": rows, "bundle": bundle, "bundle_digest": write_bundle_description(bundle)}
    output = str(work / "audit")
    first, record = write_night(output, Night(str(FIRST), **settings))
    write_report(first, make_report(first, record, bundle, 0))
    for day in range(1, nights):
        folder = RunFolder(output, str(FIRST + timedelta(day)), "audit")
        for name in ("results", "report_json", "success"):
            copy(getattr(first, name), getattr(folder, name))
        record.model_copy(update={"run_id": folder.run_id}).save(folder)
        report = Path(folder.report_json)
        report.write_text(report.read_text().replace(first.run_id, folder.run_id))
    write_night(output, Night(str(FIRST + timedelta(nights)), pictures=PICTURES, **settings))


def measure_here(work: Path, nights: int) -> dict[str, Any]:
    """Of the last night, in this process."""
    from jobs.audit.committed import committed
    from jobs.audit.record import RunFolder
    from jobs.report.make import make_report, write_report

    folder = RunFolder(str(work / "audit"), str(FIRST + timedelta(nights)), "audit")
    record = committed(folder)
    _forget()
    before, began, spent = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    report = make_report(folder, record, record.bundle, nights)
    write_report(folder, report)
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    assert report.findings.rates.nights == report.findings.drift.nights == nights
    return {
        "rows": report.findings.aggregates.total.images, "nights": nights, "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1), "before_mib": before >> 20, "peak_mib": _peak() >> 20,
        "html_kib": Path(folder.report).stat().st_size >> 10, "json_kib": Path(folder.report_json).stat().st_size >> 10,
        "table_mib": Path(folder.results).stat().st_size >> 20,
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--work", type=Path, help="folder with room for a table a night (default: a new one)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure_here(asked.one, asked.nights)))
        return
    with tempfile.TemporaryDirectory(prefix="report-", dir=asked.work) as folder:
        work = Path(folder)
        write_nights(work, asked.rows, asked.nights)
        command = [sys.executable, "-m", "tests.bench.report", "--one", str(work), "--nights", str(asked.nights)]
        for earlier in ("their numbers", "their tables"):
            if earlier == "their tables":
                for path in work.glob("audit/runs/*/audit/report.json"):
                    path.unlink()
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(json.dumps({"earlier_nights": earlier} | json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
