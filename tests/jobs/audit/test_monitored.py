"""An audit as a scheduler runs it: its log in JSON, and Prometheus scraping it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.audit import exits
from jobs.audit.run import Outcome
from jobs.monitoring.catalogue import RUN
from jobs.monitoring.streams import KEYS
from tests.cluster.prometheus import MISSING, PROMETHEUS, free_port, prometheus
from tests.jobs.audit.conftest import EXPECTED_FAILURES, GOOD, ROWS
from tests.jobs.audit.tables import published, stable

SHARDS = 9


@dataclass(frozen=True)
class Monitored:
    """What there was of it: the lines it wrote, the last scrape, what Prometheus kept, and its exit code."""

    code: int
    out: list[str]
    err: list[str]
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]
    kept: dict[str, list[float]]
    output: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (*self.out, *self.err)]

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, tuple(sorted(labels.items()))]


@pytest.fixture(scope="module")
def monitored(archive: Path, bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Monitored:
    folder, port = tmp_path_factory.mktemp("monitored"), free_port()
    command = [
        *(sys.executable, "-m", "jobs", "audit", "--manifest", str(archive / "manifest.csv"), "--bundle", bundle),
        *("--output", str(folder / "out"), "--run-date", "2026-01-02", "--shard-rows", "3", "--max-failed", "6"),
        *("--log-format", "json", "--metrics-port", str(port), "--metrics-linger", "3"),
    ]
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    with open(folder / "out.txt", "w") as out, open(folder / "err.txt", "w") as err, scraping(folder, port) as ask:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            while process.poll() is None:
                samples = scrape(port) or samples
                time.sleep(0.25)
        finally:
            process.kill()
            process.wait()
        kept = {name: ask(name) for name in ("line_audit_images_total", "line_audit_run_exit_code")}
    lines = ((folder / name).read_text().splitlines() for name in ("out.txt", "err.txt"))
    return Monitored(process.returncode, *lines, samples, kept, folder / "out")


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float] | None:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5.0)
    except httpx.TransportError:
        return None  # it has not begun, or has ended
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@contextmanager
def scraping(folder: Path, port: int) -> Iterator[Callable[[str], list[float]]]:
    """A Prometheus that scrapes the run, if there is one; yields what asks it for the values that a metric ever had."""
    if PROMETHEUS is None:
        yield lambda name: []
        return
    with prometheus(folder, {"line-audit-driver": port}) as server:
        yield lambda name: [float(v) for one in server.ask(f"{name}[30m]") for _, v in one["values"]]


@pytest.mark.slow
def test_every_line_is_json_with_run_and_shard(monitored: Monitored) -> None:
    assert monitored.code == exits.BUDGET_EXCEEDED, monitored.err
    for event in monitored.events:
        assert event.keys() >= KEYS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
    planned = next(i for i, event in enumerate(monitored.events) if event["message"] == "run planned")
    assert {event["run_id"] for event in monitored.events[planned:]} == {"2026-01-02/audit"}


@pytest.mark.slow
def test_every_shard_is_told_by_every_stage(monitored: Monitored) -> None:
    driver = next(event["pid"] for event in monitored.events if event["message"] == "run planned")
    for message in ("shard loaded", "shard extracted and scored", "shard written"):
        told = [event for event in monitored.events if event["message"] == message]
        assert sorted(event["shard"] for event in told) == list(range(SHARDS))
        assert all(event["seconds"] >= 0 and event["pid"] != driver for event in told)
    written = [event for event in monitored.events if event["message"] == "shard written"]
    assert sum(event["rows"] for event in written) == ROWS
    assert sum(event["decisions"].get("failed", 0) for event in written) == ROWS - GOOD


@pytest.mark.slow
def test_the_driver_tells_how_it_began_and_ended(monitored: Monitored) -> None:
    told = {event["message"]: event for event in monitored.events if event["shard"] is None}
    assert (told["run planned"]["rows"], told["run planned"]["shards_to_do"]) == (ROWS, SHARDS)
    assert told["self-test passed"]["images"] >= 1
    assert told["results published"]["rows"] == told["run committed"]["rows"] == ROWS
    assert told["run committed"]["failed_by_code"] == EXPECTED_FAILURES
    assert told["report written"]["verdict"] == "alarm"
    end = told["command ends"]
    assert (end["exit_code"], end["level"]) == (exits.BUDGET_EXCEEDED, "ERROR")
    assert f"7 failed of {ROWS - 1}, budget 6" in end["reason"]


@pytest.mark.slow
def test_the_last_scrape_has_the_whole_run(monitored: Monitored, run: tuple[Path, Outcome]) -> None:
    decisions = run[1].record.counts["decisions"]
    counted = dict.fromkeys(decisions, 0.0)
    for (name, labels), value in monitored.samples.items():
        if name == "line_audit_images_total":
            counted[dict(labels)["decision"]] += value
    assert counted == decisions
    for code, count in EXPECTED_FAILURES.items():
        stage, _, word = code.partition("/")
        assert monitored.value("line_audit_failures_total", stage=stage, code=word) == count
    shards = {
        dict(labels)["state"]: v for (name, labels), v in monitored.samples.items() if name == "line_audit_shards"
    }
    assert shards == {"earlier": 0, "waiting": 0, "load": 0, "extract": 0, "write": 0, "written": SHARDS}
    for stage in ("load", "extract", "score", "write"):
        assert monitored.value("line_audit_stage_seconds_total", stage=stage) > 0
    assert monitored.value("line_audit_stage_images_total", stage="extract") == GOOD
    assert monitored.value("line_audit_run_exit_code") == exits.BUDGET_EXCEEDED
    assert monitored.value("line_audit_run_phase", phase="ended") == 1
    assert monitored.value("line_audit_run_max_failed_rows") == 6
    assert (
        0
        < monitored.value("line_audit_object_store_used_bytes")
        < monitored.value("line_audit_object_store_capacity_bytes")
    )
    assert monitored.value("line_audit_cluster_capacity", resource="CPU") >= 1
    names = {name for name, _ in monitored.samples}
    assert names == {metric.name for metric in RUN}


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason=MISSING)
def test_prometheus_scrapes_it_while_it_runs(monitored: Monitored) -> None:
    assert max(monitored.kept["line_audit_images_total"]) > 0
    assert set(monitored.kept["line_audit_run_exit_code"]) == {exits.BUDGET_EXCEEDED}


@pytest.mark.slow
def test_a_run_that_is_watched_publishes_the_same_table(monitored: Monitored, run: tuple[Path, Outcome]) -> None:
    assert stable(published(monitored.output)) == stable(published(run[0]))
