"""Verifying a run of a million rows: seconds and memory. ``pytest -m campaign tests/faults/test_verify_million.py -s``.

Its shards are written by the benchmark's stub, without models and without pictures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.audit.commit import commit
from jobs.audit.record import RunFolder, RunRecord, code_version, fingerprint, now
from jobs.storage import upload, write_bytes
from jobs.uris import join
from jobs.verify.run import Settings, verify
from manifests.freeze import freeze_file
from tests.bench.scale import _forget, _manifest, _peak, _stub

MEMORY = 1500 * 2**20  # of which DuckDB may take 1 GB


def main(work: Path, rows: int) -> dict[str, float]:
    """Commit a run of so many rows, verify it, and lose a row of it."""
    _manifest(work / "manifest.parquet", rows)
    folder = RunFolder(str(work / "out"), "2026-01-01", "audit")
    frozen = freeze_file(work / "manifest.parquet", work / "frozen")
    for part in sorted((work / "frozen").iterdir()):
        upload(part, join(folder.manifest, part.name))
    parts = {
        "manifest": frozen.digest, "bundle": "b" * 64, "precision": "float32", "settings": {"heatmaps": "none"},
        "code": code_version(),
    }  # fmt: skip
    record = RunRecord(
        run_id=folder.run_id, manifest="m", source_sha256=frozen.source_sha256, bundle="b", device="cpu",
        fingerprint=fingerprint(parts), parts=parts, frozen=frozen.to_dict(), results=folder.results, created_at=now(),
    )  # fmt: skip
    _stub(folder, frozen, record)
    begin = time.monotonic()
    record.counts = commit(folder, record, frozen, ours=lambda: None)
    committed = time.monotonic()
    record.state, record.finished_at = "committed", now()
    record.save(folder)
    write_bytes(folder.success, b"")
    before = psutil.Process().memory_info().rss
    _forget()
    verifying, cpu = time.monotonic(), time.process_time()
    report = verify(Settings(folder.uri, sample=0))
    told = {
        "rows": rows, "commit_seconds": round(committed - begin, 1), "memory": _peak() - before,
        "verify_seconds": round(time.monotonic() - verifying, 1),
        "verify_cpu_seconds": round(time.process_time() - cpu, 1), "run_json_bytes": Path(folder.record).stat().st_size,
        "digests_bytes": Path(folder.digests).stat().st_size, "table_bytes": Path(folder.results).stat().st_size,
    }  # fmt: skip
    assert report.holds, report.checks
    assert {check.name: check.said for check in report.checks}["rows"] == f"{rows:,} rows, every manifest row once"
    return told


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_a_run_of_a_million_rows_is_verified_in_bounded_memory(tmp_path: Path) -> None:
    """In a process of its own, for its memory."""
    command = [sys.executable, "-m", "tests.faults.test_verify_million", str(tmp_path), "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print(f"\n{told}")
    assert told["memory"] < MEMORY
    assert told["run_json_bytes"] < 10_000


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
