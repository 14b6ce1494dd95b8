"""A hostile manifest freezes: one row out for each in, each with its own problem, in bounded memory.

The long part: ``pytest -m campaign tests/faults/test_hostile_manifest.py -s``, a million rows in each format.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from manifests.freeze import freeze_file
from tests.faults.hostile import KINDS, expected, write_manifest

MEMORY = 1200 * 2**20  # of which the search for duplicates may take 512 MB


def freeze_hostile(folder: Path, format: str, rows: int) -> dict[str, Any]:
    """Seconds, peak memory, and how many rows have which problem; raises where a row is not as it should be."""
    source = folder / f"manifest.{format}"
    write_manifest(source, format, rows)
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")
    begin = time.monotonic()
    frozen = freeze_file(source, folder / "frozen")
    seconds = time.monotonic() - begin
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    seen = bytearray(rows)
    problems: dict[str, int] = {}
    for part in frozen.parts:
        for batch in pq.ParquetFile(folder / "frozen" / part).iter_batches(
            columns=["row", "problem_code", "problem_message"]
        ):
            numbers, codes, messages = (column.to_pylist() for column in batch.columns)
            for number, code, message in zip(numbers, codes, messages, strict=True):
                assert code == EXPECTED[number % len(EXPECTED)], (number, code, message)
                assert (message is None) == (code is None)
                assert message is None or (message.isprintable() and len(message) <= 300)
                problems[code or "good"] = problems.get(code or "good", 0) + 1
                seen[number] += 1
    assert frozen.rows == rows and seen == b"\1" * rows
    return {
        "rows": rows, "format": format, "seconds": round(seconds, 1), "megabytes": source.stat().st_size // 10**6,
        "memory": peak - before, "problems": problems,
    }  # fmt: skip


EXPECTED = expected(len(KINDS))


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_every_hostile_row_comes_out_once_with_its_problem(tmp_path: Path, format: str) -> None:
    told = freeze_hostile(tmp_path, format, 4400)
    assert told["problems"] == {
        "good": 1200, "duplicate": 400, "empty_uri": 600, "not_utf8": 600, "uri_too_long": 200,
        "control_character": 600, "malformed_row": 800,
    }  # fmt: skip


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_million_hostile_rows(tmp_path: Path, format: str) -> None:
    """In a process of its own, for its memory."""
    command = [sys.executable, "-m", "tests.faults.test_hostile_manifest", str(tmp_path), format, "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print(f"\n{told}")
    assert sum(told["problems"].values()) == 1_000_000
    assert told["memory"] < MEMORY


if __name__ == "__main__":
    print(json.dumps(freeze_hostile(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
