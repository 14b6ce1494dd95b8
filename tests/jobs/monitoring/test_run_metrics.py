"""What a run's metrics say of receipts and looks: every image once, what earlier starts did apart, and few labels."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from jobs.audit.config import ErrorBudget
from jobs.audit.figures import Spent
from jobs.audit.plan import Plan
from jobs.audit.receipt import Receipt
from jobs.audit.registry import Registry
from jobs.audit.stall import Movement
from jobs.monitoring import run_metrics
from jobs.monitoring.catalogue import RUN
from jobs.monitoring.run_metrics import RunMetrics
from tests.jobs.audit.runs import scored_run

ROWS, SHARD_ROWS = 10, 3  # shards of 3, 3, 3 and 1 rows


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    folder, record, frozen = scored_run(tmp_path, pa.table({"uri": [f"{i}.png" for i in range(ROWS)]}), SHARD_ROWS)
    parts = {"bundle": "b" * 64, "precision": "bfloat16"}
    return Plan(folder, record.model_copy(update={"parts": parts}), frozen, (1, 2, 3))


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_metrics, "code_version", lambda: {"source": "c" * 64})
    whole = {"CPU": 8.0, "GPU": 2.0, "object_store_memory": 1000.0, "node:10.0.0.1": 1.0}
    monkeypatch.setattr(run_metrics.ray, "cluster_resources", lambda: whole)
    free = {"CPU": 3.0, "object_store_memory": 400.0}
    monkeypatch.setattr(run_metrics.ray, "available_resources", lambda: free)  # what is used up is not in it


def row(
    decision: str, category: str | None = None, stage: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"decision": decision, "category": category, "error_stage": stage, "error_code": code, "uri": "secret.png"}


def receipt(shard: int, *rows: dict[str, Any]) -> Receipt:
    """As it comes back from a worker."""
    (sent,) = Receipt.of(shard, rows).to_table().to_pylist()
    return Receipt.from_row(sent)


def exposed(metrics: RunMetrics, without: Iterable[str] = ()) -> list[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    kept = [line for line in lines if not line.startswith("#")]
    return [line for line in kept if not any(line.startswith(f"line_audit_{name}") for name in without)]


def test_exactly_this_is_exposed_of_a_resumed_run(plan: Plan) -> None:
    metrics = RunMetrics("audit", began=1000.0)
    metrics.planned(plan, ErrorBudget(share=0.25))
    metrics.moved(
        Movement(
            3,
            {"load": 6, "extract": 5},
            {"load": 1.0, "extract": 2.0},
            {"load": Spent(4.0, 3.0, 0.0, 6, 10, 20), "extract": Spent(9.0, 5.0, 2.5, 5, 12, 22)},
            {"write": 1},
            tried_again=1,
        )
    )
    metrics.shard_done(receipt(1, row("normal", "cap"), row("normal", "cap"), row("anomalous", "gear")))
    metrics.shard_done(
        receipt(3, row("failed", None, "fetch", "throttled"), row("review"), row("failed", "cap", "score", "odd"))
    )
    assert exposed(metrics, without=("last_movement", "last_look")) == [
        'line_audit_run_info{bundle_digest="bbbbbbbbbbbb",code_version="cccccccccccc",command="audit",device="cpu",'
        'precision="bfloat16",run_id="2026-01-02/audit"} 1.0',
        'line_audit_run_phase{phase="starting"} 0.0',
        'line_audit_run_phase{phase="scoring"} 1.0',
        'line_audit_run_phase{phase="committing"} 0.0',
        'line_audit_run_phase{phase="ended"} 0.0',
        "line_audit_run_start_timestamp_seconds 1000.0",
        "line_audit_run_rows 10.0",
        "line_audit_run_earlier_rows 3.0",
        "line_audit_run_max_failed_rows 2.5",
        'line_audit_images_total{category="(none)",decision="failed",status="failed"} 1.0',
        'line_audit_images_total{category="cap",decision="failed",status="failed"} 1.0',
        'line_audit_images_total{category="(none)",decision="review",status="scored"} 1.0',
        'line_audit_images_total{category="cap",decision="normal",status="scored"} 2.0',
        'line_audit_images_total{category="gear",decision="anomalous",status="scored"} 1.0',
        'line_audit_failures_total{code="throttled",stage="fetch"} 1.0',
        'line_audit_failures_total{code="other",stage="other"} 1.0',
        'line_audit_shards{state="earlier"} 1.0',
        'line_audit_shards{state="waiting"} 0.0',
        'line_audit_shards{state="load"} 0.0',
        'line_audit_shards{state="extract"} 0.0',
        'line_audit_shards{state="write"} 1.0',
        'line_audit_shards{state="written"} 2.0',
        "line_audit_shard_retries_total 1.0",
        'line_audit_stage_seconds_total{stage="load"} 4.0',
        'line_audit_stage_seconds_total{stage="extract"} 6.5',
        'line_audit_stage_cpu_seconds_total{stage="load"} 3.0',
        'line_audit_stage_cpu_seconds_total{stage="extract"} 5.0',
        'line_audit_stage_waited_seconds_total{stage="load"} 0.0',
        'line_audit_stage_waited_seconds_total{stage="extract"} 2.5',
        'line_audit_stage_images_total{stage="load"} 6.0',
        'line_audit_stage_images_total{stage="extract"} 5.0',
        "line_audit_object_store_capacity_bytes 1000.0",
        "line_audit_object_store_used_bytes 600.0",
        'line_audit_cluster_capacity{resource="CPU"} 8.0',
        'line_audit_cluster_capacity{resource="GPU"} 2.0',
        'line_audit_cluster_free{resource="CPU"} 3.0',
        'line_audit_cluster_free{resource="GPU"} 0.0',
    ]


def test_phases_follow_the_receipts(plan: Plan) -> None:
    metrics = RunMetrics("retry-failed")
    phases = [phase(metrics)]
    metrics.planned(plan)
    phases.append(phase(metrics))
    for shard in plan.missing:
        metrics.shard_done(receipt(shard, row("normal", "cap")))
    phases.append(phase(metrics))
    metrics.ended(3)
    phases.append(phase(metrics))
    assert phases == ["starting", "scoring", "committing", "ended"]
    assert "line_audit_run_exit_code 3.0" in exposed(metrics)
    assert not any("max_failed" in line for line in exposed(metrics))  # a retry's budget is not of its own rows


def phase(metrics: RunMetrics) -> str:
    (found,) = (line for line in exposed(metrics) if line.startswith("line_audit_run_phase") and line.endswith(" 1.0"))
    return found.partition('"')[2].partition('"')[0]


def test_duplicates_are_not_in_the_budget(plan: Plan) -> None:
    metrics = RunMetrics("audit")
    twice = replace(plan, frozen=replace(plan.frozen, problems={"duplicate": 4, "empty_uri": 1}))
    metrics.planned(twice, ErrorBudget(share=0.25))
    assert f"line_audit_run_max_failed_rows {0.25 * (ROWS - 4)}" in exposed(metrics)


def test_what_does_not_move_does_not_look_as_if_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 200.0, 300.0, 400.0, 500.0])
    metrics = RunMetrics("audit", began=0.0)
    monkeypatch.setattr(run_metrics.time, "time", lambda: next(clock))
    for begun, steps, moved in ((1, 0, 100.0), (1, 0, 100.0), (2, 0, 300.0), (2, 1, 400.0), (2, 1, 400.0)):
        metrics.moved(Movement(begun, {"load": 4}, {"load": 1.0}, steps=steps))
        assert f"line_audit_last_movement_timestamp_seconds {moved}" in exposed(metrics)
    assert "line_audit_last_look_timestamp_seconds 500.0" in exposed(metrics)


def test_a_cluster_that_does_not_answer_leaves_its_last_figures(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = RunMetrics("audit")
    metrics.moved(Movement(1, {}, {}))

    def broken() -> dict[str, float]:
        raise ConnectionError("the head is gone")

    monkeypatch.setattr(run_metrics.ray, "available_resources", broken)
    metrics.moved(Movement(2, {}, {}, tried_again=4))
    assert "line_audit_object_store_used_bytes 600.0" in exposed(metrics)
    assert "line_audit_shard_retries_total 4.0" in exposed(metrics)


def test_scrapes_beside_a_working_run_lose_nothing(plan: Plan) -> None:
    metrics = RunMetrics("audit")
    metrics.planned(plan)
    done = threading.Event()
    seen: list[list[str]] = []

    def scrape() -> None:
        while not done.is_set():
            seen.append(exposed(metrics))

    thread = threading.Thread(target=scrape)
    thread.start()
    for i in range(300):
        metrics.shard_done(receipt(i, row("normal", f"category-{i % 3}")))
    done.set()
    thread.join()
    assert sum(float(line.split()[-1]) for line in exposed(metrics) if "images_total" in line) == 300


def test_every_metric_of_the_catalogue_has_a_meaning_and_an_own_name() -> None:
    names = [metric.name for metric in RUN]
    assert len(set(names)) == len(names)
    assert all(metric.meaning and metric.name.startswith("line_audit_") for metric in RUN)
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in RUN)


def test_the_registry_knows_where_the_shards_are() -> None:
    registry, spent = Registry(None, [], {}), Spent(1, 1, 0, 2, 0, 1)  # type: ignore[arg-type]
    for shard in (5, 6, 7):
        registry.begin(shard)
    registry.spent("load", spent, 6)
    registry.spent("load", spent, 7)
    registry.spent("score", spent)
    registry.spent("extract", spent, 7)
    assert registry.movement().in_hand == {"load": 1, "extract": 1, "write": 1}
    assert registry.movement().tried_again == 0
    registry.begin(7)  # its writer died, and what it was to write was lost
    assert registry.movement().in_hand == {"load": 2, "extract": 1}
    assert registry.movement().tried_again == 1
    for stage in ("load", "extract", "write"):
        registry.spent(stage, spent, 7)
    assert registry.movement().in_hand == {"load": 1, "extract": 1}
    assert registry.movement().images == {"load": 6, "score": 2, "extract": 4, "write": 2}
