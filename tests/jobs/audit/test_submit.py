"""The audit through ``line-audit submit``, to a Ray head that was started separately."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.audit import exits
from jobs.audit.run import Outcome
from tests.jobs.audit.tables import published, stable

ROOT = Path(__file__).resolve().parents[3]


def can_make_namespaces() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    probe = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "ip", "link", "set", "lo", "up"]
    return subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="no right to make a network namespace for a Ray head on loopback")
@pytest.mark.parametrize(("max_failed", "code"), [(6, exits.BUDGET_EXCEEDED)])
def test_submitted_audit_gives_the_same_table(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path, max_failed: int, code: int
) -> None:
    arguments = [
        *("--manifest", str(archive / "manifest.csv"), "--bundle", bundle, "--output", str(tmp_path / "submitted")),
        *("--run-date", "2026-01-02", "--shard-rows", "4", "--max-failed", str(max_failed)),
    ]
    short = Path(tempfile.mkdtemp(prefix="la-", dir="/tmp"))  # Unix sockets have short paths only
    try:
        done = subprocess.run(
            [str(Path(__file__).with_name("loopback.sh")), str(short), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=400,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
    finally:
        shutil.rmtree(short, ignore_errors=True)
    told = done.stdout + done.stderr
    assert "without a token: 4" in done.stdout and "with a wrong token: 4" in done.stdout, told
    assert done.returncode == code, told
    assert "progress: 21 of 21 images" in done.stderr, told
    assert stable(published(tmp_path / "submitted")) == stable(published(run[0]))
