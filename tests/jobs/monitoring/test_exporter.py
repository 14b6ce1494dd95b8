"""What is served of an output's nights: what committed runs say, and the last of it when storage says nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from s3fs import S3FileSystem

from jobs.audit import exits
from jobs.audit.config import ErrorBudget
from jobs.audit.record import RunFolder, RunRecord
from jobs.demo.server import s3_server
from jobs.monitoring import exporter as exporter_module
from jobs.monitoring import nights as nights_module
from jobs.monitoring.catalogue import RESULTS
from jobs.monitoring.command import exporter_command
from jobs.monitoring.deadline import Deadline
from jobs.monitoring.exporter import Exporter, Site
from jobs.monitoring.nights import LOOK_BACK, Reader
from jobs.report.make import make_report, write_report
from jobs.storage import delete, write_bytes
from jobs.storage_errors import StorageAccessError
from tests.nights import CATEGORIES, Night, write_drifting_nights, write_night

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 3, 12, 7, 0, tzinfo=UTC).timestamp()
SITE = Site(Deadline.parse("06:00", "Europe/Berlin"), 25.0)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module.time, "time", lambda: NOW)


def exposed(output: str | Path | Exporter, *names: str) -> dict[str, float]:
    """By series, its value. output: read once, or an exporter that has read."""
    if isinstance(output, Exporter):
        exporter = output
    else:
        exporter = Exporter(Reader(str(output), names), SITE)
        exporter.read()
    registry = CollectorRegistry()
    registry.register(exporter)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def of(found: dict[str, float], metric: str) -> dict[str, float]:
    """The series of a metric, by their labels."""
    start = f"line_audit_{metric}"
    return {key[len(start) :]: value for key, value in found.items() if key in (start,) or key.startswith(f"{start}{{")}


def night(output: str | Path, date: str, name: str = "audit", **changes: object) -> tuple[RunFolder, RunRecord]:
    """A committed night whose record has these changes."""
    folder, record = write_night(str(output), Night(date, name, rows=300))
    changed = record.model_copy(update=changes)
    changed.save(folder)
    return folder, changed


def unfinished(output: Path, date: str, **changes: object) -> RunFolder:
    folder, _ = night(output, date, **changes)
    delete(folder.success)
    return folder


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunRecord]:
    """Ten quiet nights, and one in which a line is much louder, with its report, a price and budgets."""
    folder, record = write_drifting_nights(str(tmp_path_factory.mktemp("out")))
    record.timings["cost"] = {"total": 31.5, "per_1000_images": 21.0, "price_per_node_hour": 3.0}
    record.max_failed, record.max_failed_per_category = ErrorBudget(share=0.01), ErrorBudget(count=2)
    record.save(folder)
    write_report(folder, make_report(folder, record, record.bundle))
    return folder, record


def test_exactly_what_the_last_night_says(drifting: tuple[RunFolder, RunRecord]) -> None:
    folder, record = drifting
    found, counts = exposed(folder.output), record.counts
    began = datetime(2026, 3, 11, 1, 0, tzinfo=UTC).timestamp()
    audit = '{name="audit"}'
    assert of(found, "last_success_timestamp_seconds") == {audit: began + 90}
    assert of(found, "last_success_age_seconds") == {audit: NOW - began - 90}
    assert of(found, "last_success_begin_timestamp_seconds") == {audit: began}
    assert of(found, "last_run_exit_code") == {audit: 0}
    made = 'bundle_digest="bbbbbbbbbbbb",device="cpu",name="audit",precision="bfloat16"'
    assert of(found, "last_run_info") == {f'{{{made},run_id="2026-03-11/audit",version="1"}}': 1}
    assert of(found, "last_run_rows") == {audit: 1500}
    decisions = {f'{{decision="{name}",name="audit"}}': n for name, n in counts["decisions"].items()}
    assert of(found, "last_run_decisions") == decisions
    for metric in ("scored", "anomalous"):
        expected = {f'{{category="{c}",name="audit"}}': counts[f"{metric}_by_category"][c] for c in CATEGORIES}
        assert of(found, f"last_run_{metric}") == expected
    failures = of(found, "last_run_failures")
    assert sum(failures.values()) == counts["decisions"]["failed"] == 6
    assert failures['{code="truncated_image",name="audit",stage="decode"}'] == 1
    assert of(found, "last_run_failed_ratio") == {audit: 6 / 1500}
    worst = max(counts["failed_by_category"].values())
    budgets = {'{name="audit",scope="all"}': 6 / 15, '{name="audit",scope="category"}': worst / 2}
    assert of(found, "last_run_budget_used_ratio") == pytest.approx(budgets)
    assert of(found, "last_run_cost") == {audit: 31.5}
    assert of(found, "last_run_duration_seconds") == of(found, "last_run_node_seconds") == {audit: 90}
    assert of(found, "last_run_images_per_second") == {audit: 16.7}
    stages = {f'{{name="audit",stage="{stage}"}}': 22.5 for stage in ("load", "extract", "score", "write")}
    assert of(found, "last_run_stage_seconds") == stages
    assert of(found, "last_run_report") == {audit: 1}
    assert of(found, "last_run_verdict") == {audit: 2}


def test_drift_is_as_the_report_has_it(drifting: tuple[RunFolder, RunRecord]) -> None:
    found = of(exposed(drifting[0].output), "last_run_drift")
    report = json.loads(Path(drifting[0].report_json).read_bytes())
    worst: dict[str, float] = {}
    for one in report["drift"]["compared"]:
        line = "(all)" if one["line"] is None else one["line"]
        key = f'{{category="{one["category"]}",line="{line}",name="audit"}}'
        worst[key] = max(worst.get(key, 0), ("none", "watch", "drift").index(one["verdict"]))
    assert found == worst
    assert {key.partition('line="')[2][:2] for key, rank in found.items() if rank == 2} == {"L3"}


def test_the_site_and_the_exporter_itself(drifting: tuple[RunFolder, RunRecord]) -> None:
    found = exposed(drifting[0].output)
    assert found["line_audit_deadline_timestamp_seconds"] == datetime(2026, 3, 12, 5, 0, tzinfo=UTC).timestamp()
    assert found["line_audit_night_timestamp_seconds"] == datetime(2026, 3, 11, 5, 0, tzinfo=UTC).timestamp()
    assert found["line_audit_max_cost"] == 25
    # The night of the 11th began at 01:00 UTC, before the deadline of its morning: tonight's is missing.
    assert (
        of(found, "last_success_begin_timestamp_seconds")['{name="audit"}']
        < found["line_audit_night_timestamp_seconds"]
    )
    counters = ("reads_total", "errors_total", "staleness_seconds", "unreadable_runs")
    assert [found[f"line_audit_exporter_{name}"] for name in counters] == [1, 0, 0, 0]


def test_every_metric_of_the_catalogue_is_served(drifting: tuple[RunFolder, RunRecord], tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(drifting[0].output, output)
    folder = unfinished(output, "2026-03-12", state="failed", exit_code=4)
    write_bytes(folder.lock, json.dumps({"beat": NOW - 5}).encode())
    names = {key.partition("{")[0] for key in exposed(output)}
    assert names == {metric.name for metric in RESULTS}


def test_a_report_of_another_version_says_nothing(drifting: tuple[RunFolder, RunRecord], tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(drifting[0].output, output)
    folder = RunFolder(str(output), "2026-03-11", "audit")
    drifting[1].model_copy(update={"rethresholds": [{}]}).save(folder)
    found = exposed(output)
    assert of(found, "last_run_report") == {'{name="audit"}': 0}
    assert of(found, "last_run_drift") == of(found, "last_run_verdict") == {}
    write_bytes(folder.report_json, b'{"verdict": "quiet"}')
    assert of(exposed(output), "last_run_report") == {'{name="audit"}': 0}


def test_unfinished_runs_are_told_with_state_age_and_heartbeat(tmp_path: Path) -> None:
    night(tmp_path, "2026-03-10")
    unfinished(tmp_path, "2026-03-09", state="failed", exit_code=1)  # before the last committed one: forgotten
    unfinished(tmp_path, "2026-03-11", state="failed", exit_code=4, created_at="2026-03-12T01:00:00+00:00")
    running = unfinished(tmp_path, "2026-03-12", state="running", exit_code=130)  # of the start before
    write_bytes(running.lock, json.dumps({"beat": NOW - 700, "token": "t"}).encode())
    found = exposed(tmp_path)
    one, two = ('name="audit",run_date="2026-03-11"', 'name="audit",run_date="2026-03-12"')
    assert of(found, "unfinished_run_state") == {f'{{{one},state="failed"}}': 1, f'{{{two},state="running"}}': 1}
    assert of(found, "unfinished_run_age_seconds") == {f"{{{one}}}": 6 * 3600, f"{{{two}}}": 6 * 3600}
    assert of(found, "unfinished_run_exit_code") == {f"{{{one}}}": 4}
    assert of(found, "unfinished_run_heartbeat_age_seconds") == {f"{{{two}}}": 700}
    assert of(found, "last_run_exit_code") == {'{name="audit"}': 4}  # the last one that has ended
    assert of(found, "last_run_info").keys() == {key for key in of(found, "last_run_info") if "2026-03-10" in key}
    assert of(found, "last_run_budget_used_ratio") == {}  # of a version that did not record budgets


@pytest.mark.parametrize("content", [b"", b"[]", b'{"beat": "soon"}', b"\xff"])
def test_a_lock_that_nobody_can_read_has_no_heartbeat(tmp_path: Path, content: bytes) -> None:
    write_bytes(unfinished(tmp_path, "2026-03-12", state="running").lock, content)
    assert of(exposed(tmp_path), "unfinished_run_heartbeat_age_seconds") == {}


def test_budgets_that_allow_nothing(tmp_path: Path) -> None:
    nothing = ErrorBudget(count=0)
    _, record = night(tmp_path, "2026-03-10", max_failed=nothing)
    night(tmp_path, "2026-03-10", "bad", max_failed=nothing, counts=record.counts | {"failed_by_category": {"pill": 1}})
    used = {'{name="audit",scope="all"}': 0, '{name="bad",scope="all"}': float("inf")}
    assert of(exposed(tmp_path), "last_run_budget_used_ratio") == used


def test_names_that_were_asked_for(tmp_path: Path) -> None:
    for name in ("audit", "line-4", "trial"):
        night(tmp_path, "2026-03-10", name)
    found = of(exposed(tmp_path, "line-4", "never"), "last_success_timestamp_seconds")
    assert found == {'{name="line-4"}': datetime(2026, 3, 10, 1, 1, 6, tzinfo=UTC).timestamp(), '{name="never"}': 0}
    assert len(of(exposed(tmp_path), "last_success_timestamp_seconds")) == 3


def test_a_success_of_long_ago_is_found_and_no_more_than_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night(tmp_path, "2025-12-24")
    for day in range(1, LOOK_BACK + 2):
        unfinished(tmp_path, f"2026-03-{day:02d}", state="failed", exit_code=1)
    searches: list[str] = []
    search = nights_module.committed_runs
    monkeypatch.setattr(nights_module, "committed_runs", lambda *a, **k: searches.append(a[1]) or search(*a, **k))
    exporter = Exporter(Reader(str(tmp_path)), SITE)
    for _ in range(3):
        exporter.read()
    found = exposed(exporter)
    assert of(found, "last_success_begin_timestamp_seconds") == {
        '{name="audit"}': datetime(2025, 12, 24, 1, 0, tzinfo=UTC).timestamp()
    }
    assert len(of(found, "unfinished_run_age_seconds")) == LOOK_BACK
    assert searches == ["audit"]


def test_storage_that_says_nothing_leaves_what_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    night(tmp_path / "out", "2026-03-10")
    exporter = Exporter(Reader(str(tmp_path / "out")), SITE)
    exporter.read()
    before = exposed(exporter)
    (tmp_path / "out").rename(tmp_path / "elsewhere")  # a disk that was unmounted
    exporter.read()
    for error in (StorageAccessError("s3://u:p@line: refused"), OSError("no such device"), RuntimeError("odd")):
        monkeypatch.setattr(nights_module, "run_dates", lambda output, error=error: (_ for _ in ()).throw(error))
        exporter.read()
    monkeypatch.setattr(exporter_module.time, "time", lambda: NOW + 240)
    after = exposed(exporter)
    changed = {key: after[key] - before[key] for key in before if after[key] != before[key]}
    assert changed == {
        'line_audit_last_success_age_seconds{name="audit"}': 240,
        "line_audit_exporter_reads_total": 4,
        "line_audit_exporter_errors_total": 4,
        "line_audit_exporter_staleness_seconds": 240,
    }
    assert after.keys() == before.keys()
    told = capsys.readouterr().err
    assert "there are no runs any more" in told and "s3://***@line: refused" in told


def test_a_record_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    kept, _ = night(tmp_path, "2026-03-09")
    night(tmp_path, "2026-03-10", "line-4")
    broken, record = night(tmp_path, "2026-03-10")
    write_bytes(broken.record, b'{"schema_version": 99}')
    found = exposed(tmp_path)
    assert found["line_audit_exporter_unreadable_runs"] == 1
    assert len(of(found, "last_success_timestamp_seconds")) == 2
    record.model_copy(update={"counts": {}}).save(broken)  # it can be read, and says nothing
    found = exposed(tmp_path)
    assert found["line_audit_exporter_unreadable_runs"] == 1
    assert of(found, "last_run_rows") == {'{name="line-4"}': 300}
    assert kept.run_date == "2026-03-09"


def test_an_output_without_runs_has_no_names(tmp_path: Path) -> None:
    found = exposed(tmp_path / "nothing")
    assert not any("name=" in key for key in found)
    assert found["line_audit_exporter_errors_total"] == 0


def test_names_of_lines_are_short_printable_and_without_secrets(tmp_path: Path) -> None:
    folder, record = night(tmp_path, "2026-03-10")
    write_report(folder, make_report(folder, record, record.bundle))
    report = json.loads(Path(folder.report_json).read_bytes())
    figures = {"scores": 9, "reference": 9, "share_above": 0.1, "ratio": 1.0, "index": 0.1, "watch_index": 0.1}
    figures |= {"drift_index": 0.1, "distance": 0.5, "watch_distance": 0.1, "drift_distance": 0.1}
    lines = ['a"}\n# HELP x', "s3://u:secret@h/" + "x" * 500, *(f"L{i}" for i in range(300))]
    report["drift"]["compared"] = [
        {"category": "pill", "line": line, "against": "earlier nights", "verdict": "drift", **figures} for line in lines
    ]
    write_bytes(folder.report_json, json.dumps(report).encode())
    found = of(exposed(tmp_path), "last_run_drift")
    assert len(found) == 200
    assert all(len(key) < 160 and "secret" not in key for key in found)


@pytest.fixture
def s3() -> Iterator[None]:
    with s3_server("line"):
        S3FileSystem.clear_instance_cache()
        yield
    S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("s3")
def test_it_is_the_same_on_s3(tmp_path: Path) -> None:
    for output in (str(tmp_path), "s3://line/out"):
        night(output, "2026-03-10", "line-4")
        lost, _ = night(output, "2026-03-11", state="running")
        delete(lost.success)
    local, remote = exposed(tmp_path), exposed("s3://line/out")
    for found in (local, remote):
        del found["line_audit_exporter_read_seconds"]
    assert local == remote


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"deadline": "6 o'clock"}, "--deadline"),
        ({"time_zone": "Mars/North"}, "--time-zone"),
        ({"names": ["a/b"]}, "--name a/b"),
        ({"output": "gopher://x"}, "--output"),
        ({"output": "s3://u:secret@line/out"}, "credentials"),
        ({"host": "192.0.2.1"}, "cannot be listened on"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, changed: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"output": str(tmp_path), "names": (), "host": "127.0.0.1", "port": 0, "deadline": "06:00"}
    settings |= {"time_zone": "UTC", "max_cost": None, **changed}
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert exporter_command(**settings) == exits.USAGE  # type: ignore[arg-type]
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    told = capsys.readouterr().err
    assert said in told and "secret" not in told


@pytest.mark.slow
def test_what_computes_is_not_loaded() -> None:
    """A process that stays all day: torch alone would take half a gigabyte."""
    asked = "import sys, jobs.monitoring.command; print({'torch', 'ray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_the_command_serves_until_it_is_ended(tmp_path: Path) -> None:
    night(tmp_path, "2026-03-10")
    command = [sys.executable, "-m", "jobs", "exporter", "--output", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            assert address.startswith("http://127.0.0.1:")
            end = time.monotonic() + 60
            while 'line_audit_last_run_rows{name="audit"} 300.0' not in httpx.get(address).text:
                assert time.monotonic() < end
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
