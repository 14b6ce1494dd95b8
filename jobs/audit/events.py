"""What JSON logs tell of a command, where a person at a terminal gets a summary: one event each, with figures."""

from __future__ import annotations

import logging
from typing import Any

from jobs.audit import exits
from jobs.audit.config import AuditConfig
from jobs.audit.plan import Plan
from jobs.audit.record import RunRecord
from jobs.audit.run import Outcome, Preview
from jobs.monitoring.logs import about_run

_log = logging.getLogger(__name__)


def planned(plan: Plan) -> None:
    """A run, or a retry, is about to be worked on."""
    record, whole, to_do = plan.record, plan.frozen.rows, plan.rows_to_do
    rows = {"rows": whole, "rows_to_do": to_do, "rows_earlier": whole - to_do}
    shards = {"shards": len(plan.frozen.shards), "shards_to_do": len(plan.missing)}
    _log.info("run planned", extra=rows | shards | {"start": record.starts + 1, "state": record.state})


def previewed(config: AuditConfig, preview: Preview) -> None:
    """What an audit would do."""
    told: dict[str, Any] = {"rows": preview.frozen.rows, "rows_to_do": preview.to_do}
    told |= {"shards": len(preview.frozen.shards), "results": preview.folder.results, "warnings": [*preview.warnings]}
    expected = preview.expected
    if expected is not None:
        told |= {"seconds": expected.duration_seconds, "images_per_second": expected.images_per_second}
        if config.price_per_node_hour is not None:
            told["cost"] = expected.cost(config.price_per_node_hour, preview.to_do)["total"]
    _log.info("dry run: nothing was written", extra=told)


def audited(config: AuditConfig, outcome: Outcome) -> None:
    """How an audit ended."""
    timings = outcome.record.timings
    told = {name: timings.get(name) for name in ("seconds", "images_per_second", "node_seconds")}
    told |= {"cost": (timings.get("cost") or {}).get("total"), "shards": outcome.scored_shards}
    told |= {"deviation": outcome.record.self_test.get("largest_deviation")}
    _committed("audit", outcome, told)


def retried(outcome: Outcome) -> None:
    """What a retry made of the failed rows."""
    done = outcome.scored_shards + outcome.earlier_shards
    last = outcome.record.retries[-1] if done else {}
    _committed("retry-failed", outcome, {name: last.get(name) for name in ("recovered", "seconds")})


def rethresholded(outcome: Outcome) -> None:
    """What other thresholds made of the decisions."""
    last = outcome.record.rethresholds[-1] if outcome.scored_shards else {}
    _committed("rethreshold", outcome, {name: last.get(name) for name in ("thresholds", "seconds")})


def ended(code: int, reason: str | None = None) -> None:
    """The command ends. reason: of a run that was committed."""
    level = logging.INFO if code == exits.COMMITTED else logging.ERROR
    _log.log(level, "command ends", extra={"exit_code": code, "reason": reason or exits.MEANING[code]})


def _committed(command: str, outcome: Outcome, told: dict[str, Any]) -> None:
    record: RunRecord = outcome.record
    about_run(record.run_id)  # nothing was planned if it was committed before
    counts = record.counts
    told |= {"command": command, "version": record.version, "rows": counts["rows"], "decisions": counts["decisions"]}
    told |= {"scored": counts["status"].get("scored", 0), "failed": counts["status"].get("failed", 0)}
    told |= {"failed_by_code": counts["failed_by_code"], "results": record.results, "report": outcome.report}
    _log.info("run committed", extra=told)
    ended(outcome.code, record.exit_reason)
