"""The server that is scraped: read-only, and no client can hold it up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

import httpx
import pytest
from prometheus_client.registry import Collector

from jobs.audit import exits
from jobs.monitoring import endpoint
from jobs.monitoring.catalogue import RUN, Exposition, Family
from jobs.monitoring.endpoint import serving
from jobs.monitoring.run_metrics import RunMetrics
from jobs.monitoring.watched import MonitorSettings, monitored


class Fixed(Collector):
    def collect(self) -> Iterable[Family]:
        found = Exposition(RUN)
        found.add("line_audit_run_rows", 34)
        return found.families()


def test_it_serves_what_is_collected_and_nothing_else() -> None:
    with serving(Fixed(), "127.0.0.1", 0) as address:
        answer = httpx.get(address)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert answer.text.splitlines()[1:] == ["# TYPE line_audit_run_rows gauge", "line_audit_run_rows 34.0"]
        assert httpx.post(address, content=b"x" * 1000).status_code == 405
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_clients_that_say_nothing_or_nonsense_hold_up_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.2)
    with serving(Fixed(), "127.0.0.1", 0) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2].partition("/")[0]))
        silent = [socket.create_connection(place) for _ in range(20)]
        silent[0].sendall(b"\x00\xff" * 5000)
        silent[1].sendall(b"GET /metrics HTTP/1.1\r\n")
        silent[2].close()
        assert httpx.get(address, timeout=2.0).status_code == 200
        time.sleep(0.3)
        silent[3].settimeout(2.0)
        assert silent[3].recv(1) == b""  # it is hung up on
        for one in silent:
            one.close()
    assert capsys.readouterr() == ("", "")


def test_a_port_that_is_taken_is_told_and_the_work_is_done() -> None:
    told: list[str] = []
    with serving(Fixed(), "127.0.0.1", 0) as address:
        port = int(address.rpartition(":")[2].partition("/")[0])
        assert monitored("audit", MonitorSettings(port), 0.0, lambda metrics: 3, told.append) == 3
    assert [one.partition(": ")[0] for one in told] == ["no metrics are served"]
    assert f"127.0.0.1:{port}" in told[0]


def test_a_command_is_served_as_long_as_it_lingers() -> None:
    seen: list[str] = []
    begun = time.monotonic()

    def work(metrics: RunMetrics | None) -> int:
        assert metrics is not None
        seen.extend(line for line in httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines() if "phase" in line)
        return exits.COMMITTED

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    assert monitored("audit", MonitorSettings(port, linger=0.3), 0.0, work, pytest.fail) == exits.COMMITTED
    assert 'line_audit_run_phase{phase="starting"} 1.0' in seen
    assert time.monotonic() - begun >= 0.3
    begun = time.monotonic()
    monitored("audit", MonitorSettings(port, linger=30), 0.0, lambda metrics: exits.INTERRUPTED, pytest.fail)
    assert time.monotonic() - begun < 5  # whoever interrupts does not wait


def test_settings_are_taken_out_of_those_of_a_command() -> None:
    given = {"metrics_port": 1, "metrics_host": "h", "metrics_linger": 2.0, "port": "a setting of its own"}
    assert MonitorSettings.taken(given) == (MonitorSettings(1, "h", 2.0), {"port": "a setting of its own"})
    assert MonitorSettings.taken({"name": "audit"}) == (MonitorSettings(), {"name": "audit"})
