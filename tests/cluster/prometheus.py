"""A real Prometheus for tests, on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

PROMETHEUS = shutil.which("prometheus")
MISSING = "no prometheus: nothing is scraped (Debian: apt-get install prometheus)"


class Prometheus:
    """One that runs. address: of its web server."""

    def __init__(self, address: str):
        self.address = address

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        answer = httpx.get(f"{self.address}/api/v1/query", params={"query": expression}, timeout=60.0).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until an expression gives something."""
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.2)


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """One that scrapes ports of this machine every second. targets: ports by name of the job."""
    assert PROMETHEUS is not None
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()]
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    web = free_port()
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    with open(folder / "prometheus.txt", "w") as log:
        server = subprocess.Popen(
            [PROMETHEUS, *arguments, f"--web.listen-address=127.0.0.1:{web}"], stdout=log, stderr=log
        )
    try:
        found = Prometheus(f"http://127.0.0.1:{web}")
        _await(server, found.address, folder)
        yield found
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _await(server: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    end = time.monotonic() + 60
    while True:
        assert server.poll() is None and time.monotonic() < end, (folder / "prometheus.txt").read_text()
        try:
            if httpx.get(f"{address}/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not yet
        time.sleep(0.1)
