"""An audit submitted to a cluster of a head and three nodes on loopback, which loses one of them."""

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

ROOT = Path(__file__).resolve().parents[3]
RUN = "runs/2026-01-02/audit"


def can_make_namespaces() -> bool:
    """Whether this user may make a network namespace, which the cluster lives in."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    probe = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "ip", "link", "set", "lo", "up"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def submitted(
    output: Path, manifest: str, bundle: str, *more: str, seconds: float = 500
) -> subprocess.CompletedProcess[str]:
    """Run loopback.sh: submit an audit, which runs below ``output`` as RUN, to a cluster that loses its first node for
    loading when the first shard is written. Raises subprocess.TimeoutExpired."""
    arguments = ["--manifest", manifest, "--bundle", bundle, "--output", str(output), "--run-date", "2026-01-02", *more]
    with _short_folder() as short:
        return subprocess.run(
            [str(Path(__file__).with_name("loopback.sh")), str(short), str(output / RUN / "shards"), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )


@contextmanager
def _short_folder() -> Iterator[Path]:
    """Unix sockets have short paths only."""
    short = Path(tempfile.mkdtemp(prefix="la-", dir="/tmp"))
    try:
        yield short
    finally:
        shutil.rmtree(short, ignore_errors=True)


def timings(output: Path) -> dict[str, Any]:
    """Of the run's record."""
    found: dict[str, Any] = json.loads((output / RUN / "run.json").read_text())["timings"]
    return found


def images_by_pool(output: Path) -> dict[str | None, Counter[str]]:
    """Images of each stage, by the pool of the nodes that it ran on."""
    found: dict[str | None, Counter[str]] = {}
    for node in timings(output)["nodes"].values():
        found.setdefault(node["pool"], Counter()).update(node["images"])
    return found
