"""The metrics of a name's nights, from what was read of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.audit.config import ErrorBudget
from jobs.audit.error_codes import known
from jobs.audit.record import RunRecord
from jobs.monitoring.catalogue import DIGITS, Exposition
from jobs.monitoring.nights import Night, Nights, Unfinished, begun_at, ended_at
from jobs.report.findings import Findings
from jobs.report.names import shown
from jobs.report.verdict import Verdict
from manifests.secrets import redacted

VERDICTS: dict[Verdict, int] = {"unknown": -1, "quiet": 0, "watch": 1, "alarm": 2}
MOST_DRIFTS = 200
ALL_LINES = "(all)"


def add_nights(found: Exposition, name: str, nights: Nights, now: float) -> None:
    """Fill in what is known of a name. now: seconds since the epoch."""
    last = nights.last
    found.add("line_audit_last_success_timestamp_seconds", ended_at(last.record) if last else 0, name)
    found.add("line_audit_last_success_begin_timestamp_seconds", begun_at(last.record) if last else 0, name)
    found.add("line_audit_last_run_exit_code", nights.exit_code, name)
    if last is not None:
        found.add("line_audit_last_success_age_seconds", now - ended_at(last.record), name)
        _add_last(found, name, last)
    for one in nights.unfinished:
        _add_unfinished(found, name, one, now)


def _add_last(found: Exposition, name: str, last: Night) -> None:
    record, counts, timings = last.record, last.record.counts, last.record.timings
    bundle, precision = record.parts["bundle"][:DIGITS], record.parts["precision"]
    version = str(record.version)
    found.add("line_audit_last_run_info", 1, name, record.run_id, bundle, precision, record.device, version)
    found.add("line_audit_last_run_rows", counts["rows"], name)
    for decision, count in counts["decisions"].items():
        found.add("line_audit_last_run_decisions", count, name, decision)
    for metric in ("scored", "anomalous"):
        for category, count in counts[f"{metric}_by_category"].items():
            found.add(f"line_audit_last_run_{metric}", count, name, category)
    for (stage, code), count in _by_code(counts["failed_by_code"]).items():
        found.add("line_audit_last_run_failures", count, name, stage, code)
    _add_budget(found, name, record)
    found.add("line_audit_last_run_duration_seconds", timings.get("seconds"), name)
    found.add("line_audit_last_run_images_per_second", timings.get("images_per_second"), name)
    found.add("line_audit_last_run_node_seconds", timings.get("node_seconds"), name)
    found.add("line_audit_last_run_cost", (timings.get("cost") or {}).get("total"), name)
    for stage, spent in (timings.get("stages") or {}).items():
        found.add("line_audit_last_run_stage_seconds", spent["seconds"], name, stage)
    found.add("line_audit_last_run_report", last.findings is not None, name)
    if last.findings is not None:
        found.add("line_audit_last_run_verdict", VERDICTS[last.findings.verdict], name)
        for (category, line), rank in _drifts(last.findings):
            found.add("line_audit_last_run_drift", rank, name, category, line)


def _by_code(failed: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Failed rows by stage and code, from run.json's ``stage/code``."""
    found: dict[tuple[str, str], int] = {}
    for both, count in failed.items():
        stage, _, code = both.partition("/")
        found[known(stage, code)] = found.get(known(stage, code), 0) + count
    return found


def _add_budget(found: Exposition, name: str, record: RunRecord) -> None:
    counts: dict[str, Any] = record.counts
    failed, rows = counts["failed_by_category"], record.budgeted_by_category
    found.add("line_audit_last_run_failed_ratio", sum(failed.values()) / record.budgeted, name)
    if record.max_failed is not None:
        used = _used(record.max_failed, sum(failed.values()), record.budgeted)
        found.add("line_audit_last_run_budget_used_ratio", used, name, "all")
    if record.max_failed_per_category is not None:
        budget = record.max_failed_per_category
        worst = max((_used(budget, count, rows[of]) for of, count in failed.items() if of), default=0.0)
        found.add("line_audit_last_run_budget_used_ratio", worst, name, "category")


def _used(budget: ErrorBudget, failed: int, rows: int) -> float:
    allowed = (budget.share or 0.0) * rows if budget.count is None else float(budget.count)
    return failed / allowed if allowed else float("inf") if failed else 0.0


def _drifts(findings: Findings) -> list[tuple[tuple[str, str], int]]:
    """Category and line with the worse of both verdicts, those that moved most if there are too many."""
    worst: dict[tuple[str, str], tuple[int, float]] = {}
    for one in findings.drift.compared:
        line = ALL_LINES if one.line is None else redacted(shown(one.line))
        key = (redacted(shown(one.category)), line)
        worst[key] = max(worst.get(key, (0, 0.0)), (one.rank, one.distance))
    most = sorted(worst, key=lambda key: (worst[key], key), reverse=True)[:MOST_DRIFTS]
    return [(key, worst[key][0]) for key in sorted(most)]


def _add_unfinished(found: Exposition, name: str, one: Unfinished, now: float) -> None:
    record, date = one.record, one.run_date
    found.add("line_audit_unfinished_run_state", 1, name, date, record.state)
    found.add("line_audit_unfinished_run_age_seconds", now - begun_at(record), name, date)
    found.add(
        "line_audit_unfinished_run_exit_code", None if record.state == "running" else record.exit_code, name, date
    )
    beat = None if one.beat is None else now - one.beat
    found.add("line_audit_unfinished_run_heartbeat_age_seconds", beat, name, date)
