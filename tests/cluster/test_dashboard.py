"""Every panel of the dashboard, asked of a real Prometheus that scrapes an exporter and a run: each has something to
show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.audit.config import ErrorBudget
from jobs.audit.figures import Spent
from jobs.audit.plan import Plan
from jobs.audit.receipt import Receipt
from jobs.audit.stall import Movement
from jobs.monitoring import run_metrics
from jobs.monitoring.deadline import Deadline
from jobs.monitoring.endpoint import serving
from jobs.monitoring.exporter import Exporter, Site
from jobs.monitoring.nights import Reader
from jobs.monitoring.run_metrics import RunMetrics
from jobs.report.make import make_report, write_report
from jobs.storage import delete, write_bytes
from tests.cluster.prometheus import MISSING, PROMETHEUS, Prometheus, prometheus
from tests.cluster.test_monitoring import expressions
from tests.jobs.audit.runs import scored_run
from tests.nights import Night, write_night

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROMETHEUS is None, reason=MISSING)]
# With a report there is no series for one that is missing, and Ray's own metrics come from its nodes.
WITHOUT = ("line_audit_last_run_report", "ray_")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("scraped")
    exporter, run = of_nights(folder / "out"), of_a_run(folder)
    with pytest.MonkeyPatch.context() as patch, serving(exporter, "127.0.0.1", 0) as one:
        patch.setattr(run_metrics, "code_version", lambda: {"source": "c" * 64})
        with serving(run, "127.0.0.1", 0) as other:
            ports = [int(address.rpartition(":")[2].partition("/")[0]) for address in (one, other)]
            jobs = dict(zip(("line-audit-exporter", "line-audit-driver"), ports, strict=True))
            with prometheus(folder, jobs) as server:
                server.until("count_over_time(line_audit_run_rows[1m]) >= 3 and on () line_audit_max_cost")
                yield server


def of_nights(output: Path) -> Exporter:
    for day in range(1, 12):  # so many that scores can be compared
        folder, record = write_night(str(output), Night(f"2026-03-{day:02d}", rows=600, failed=0.02))
    record.timings["cost"] = {"total": 31.5, "per_1000_images": 35.0, "price_per_node_hour": 3.0}
    record.max_failed = ErrorBudget(share=0.01)
    record.save(folder)
    write_report(folder, make_report(folder, record, record.bundle))
    lost, left = write_night(str(output), Night("2026-03-12", rows=300))
    delete(lost.success)
    left.model_copy(update={"state": "failed", "exit_code": 4}).save(lost)
    write_bytes(lost.lock, b'{"beat": 1.0}')
    exporter = Exporter(Reader(str(output)), Site(Deadline.parse("06:00", "Europe/Berlin"), 25.0))
    exporter.read()
    return exporter


def of_a_run(folder: Path) -> RunMetrics:
    run, record, frozen = scored_run(folder, pa.table({"uri": [f"{i}.png" for i in range(9)]}), 3)
    parts = {"bundle": "b" * 64, "precision": "bfloat16"}
    metrics = RunMetrics("audit")
    metrics.planned(Plan(run, record.model_copy(update={"parts": parts}), frozen, (1, 2)), ErrorBudget(count=1))
    spent = {stage: Spent(4.0, 3.0, 1.0, 6, 10, 20) for stage in ("load", "extract", "score", "write")}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("available_resources", "cluster_resources"):
            patch.setattr(run_metrics.ray, name, lambda: {"CPU": 8.0, "GPU": 1.0, "object_store_memory": 1e9})
        metrics.moved(Movement(3, {"load": 6}, {"load": 1.0}, spent, {"write": 1}, 1))
    failed = {"decision": "failed", "category": None, "error_stage": "fetch", "error_code": "timeout"}
    scored = {"decision": "normal", "category": "cap", "error_stage": None, "error_code": None}
    metrics.shard_done(Receipt.of(1, [scored, scored, failed]))
    metrics.ended(3)
    return metrics


def test_every_panel_has_something_to_show(scraped: Prometheus) -> None:
    for title, text in expressions():
        if not text.startswith(WITHOUT) and "ray_" not in text:
            asked = text.replace("$__rate_interval", "30s").replace("$name", ".*")
            assert scraped.ask(asked), (title, asked)


def test_the_progress_of_a_run_is_a_share(scraped: Prometheus) -> None:
    (asked,) = (text for title, text in expressions() if title == "Progress")
    (found,) = scraped.ask(asked)
    assert json.loads(found["value"][1]) == pytest.approx((3 + 3) / 9)


def test_rules_that_hold_hold_here_too(scraped: Prometheus) -> None:
    over = "line_audit_last_run_cost > on (job, instance) group_left () line_audit_max_cost"
    assert [one["value"][1] for one in scraped.ask(over)] == ["31.5"]
    late = "line_audit_last_success_begin_timestamp_seconds < on (job, instance) group_left () "
    assert len(scraped.ask(late + "line_audit_night_timestamp_seconds")) == 1
