"""One Ray for many audits that are killed: each is a process that joins it, so that none waits for Ray to start."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
KILLER = Path(__file__).with_name("killer")
CPUS, STORE_MIB = 2, 512


@dataclass
class Cluster:
    """A running Ray. environment: of drivers that join it. orders: the folder in which the killer looks for orders."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    orders: Path

    def add_node(self, name: str) -> int:
        """Another node, in whose processes LINE_AUDIT_NODE is ``name``; the process id of its raylet."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def running_cluster(cpus: int = CPUS) -> Iterator[Cluster]:
    """A Ray with a token of its own. Its workers have the environment that this process has now, and the killer."""
    short = Path(tempfile.mkdtemp(prefix="la-", dir="/tmp"))  # Unix sockets have short paths only
    orders, token = short / "orders", short / "token"
    orders.mkdir()
    token.write_text(secrets.token_hex(32))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{KILLER}{os.pathsep}{ROOT}",
        "PYTHONUNBUFFERED": "1",
        "LINE_AUDIT_KILL": str(orders),
        "RAY_TMPDIR": str(short),  # where Ray notes its address; /tmp/ray need not be there
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    with open(short / "host.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.host", str(cpus), str(STORE_MIB), str(short / "ray")],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (short / "host.log").read_text()
        yield Cluster(process, environment | {"RAY_ADDRESS": address}, orders)
    finally:
        _end(process)
        shutil.rmtree(short, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Close its standard input, on which it ends; then end what it has left behind."""
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    _, left = psutil.wait_procs(started, timeout=5)
    for one in left:
        one.kill()
