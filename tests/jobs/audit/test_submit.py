"""The audit through ``line-audit submit``, on a Ray cluster of a head and three nodes that was started separately."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import exits
from jobs.audit.run import Outcome
from tests.jobs.audit.conftest import ROWS
from tests.jobs.audit.tables import published, stable

ROOT = Path(__file__).resolve().parents[3]


def can_make_namespaces() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    probe = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "ip", "link", "set", "lo", "up"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def submitted(output: Path, archive: Path, bundle: str, *more: str) -> subprocess.CompletedProcess[str]:
    """An audit in shards of four rows, submitted to a cluster that loses a node when the first shard is written."""
    arguments = [
        *("--manifest", str(archive / "manifest.csv"), "--bundle", bundle, "--output", str(output)),
        *("--run-date", "2026-01-02", "--shard-rows", "4", *more),
    ]
    with short_folder() as short:
        return subprocess.run(
            [
                str(Path(__file__).with_name("loopback.sh")),
                str(short),
                str(output / "runs/2026-01-02/audit/shards"),
                *arguments,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=500,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )


@contextmanager
def short_folder() -> Iterator[Path]:
    """Unix sockets have short paths only."""
    short = Path(tempfile.mkdtemp(prefix="la-", dir="/tmp"))
    try:
        yield short
    finally:
        shutil.rmtree(short, ignore_errors=True)


def timings(output: Path) -> dict[str, Any]:
    """Of the run's record."""
    record = json.loads((output / "runs/2026-01-02/audit/run.json").read_text())
    found: dict[str, Any] = record["timings"]
    return found


def images_by_pool(output: Path) -> dict[str | None, Counter[str]]:
    """Images of each stage, by the pool of the nodes that it ran on."""
    found: dict[str | None, Counter[str]] = {}
    for node in timings(output)["nodes"].values():
        found.setdefault(node["pool"], Counter()).update(node["images"])
    return found


@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="no right to make a network namespace for a cluster on loopback")
def test_a_cluster_that_loses_a_node_gives_the_same_table_and_the_code_arrives(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path
) -> None:
    done = submitted(tmp_path / "submitted", archive, bundle, "--max-failed", "6", "--extractors", "1")
    told = done.stdout + done.stderr
    assert "without a token: 4" in done.stdout and "with a wrong token: 4" in done.stdout, told
    assert "killed a node for loading" in done.stdout, told
    assert done.returncode == exits.BUDGET_EXCEEDED, told
    assert f"progress: {ROWS} of {ROWS} images" in done.stderr, told
    assert stable(published(tmp_path / "submitted")) == stable(published(run[0]))
    stages = images_by_pool(tmp_path / "submitted")
    assert set(stages) == {"load", "models"}, "the head does no work"
    assert set(stages["load"]) == {"load", "write"} and {"extract", "score"} <= set(stages["models"]), stages
    # With one of two nodes for loading just lost, Ray takes the second choice for a moment: seen for one shard of ten.
    assert stages["models"]["load"] + stages["models"]["write"] < ROWS / 4, stages
    assert timings(tmp_path / "submitted")["machine"]["load_cpus"] == 2, "one node for loading is left"
