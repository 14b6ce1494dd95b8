"""How an audit ended: its exit code, from whoever still knows it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import httpx

from cluster.nightly.dashboard import Dashboard
from cluster.nightly.rayjob import state
from jobs.audit import exits
from jobs.audit.exits import USAGE, AuditError
from jobs.terminal import note, say

ATTEMPTS = 3
WAIT_SECONDS = 5.0
LINES = 200  # of the driver's log, which goes with its cluster
_SIGINT, _SIGTERM = 2, 15


def exit_code(
    job: dict[str, Any],
    token: str | None,
    recorded: Callable[[], int | None],
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """The exit code of the audit in a RayJob that has ended, one of README's.

    Asked in turn: Ray's dashboard, which knows the driver's own code; KubeRay, of a job that succeeded, was stopped or
    never could start; ``recorded``, run.json. Where nobody knows, 1: a retry then resumes what there is.
    """
    status = job.get("status", {})
    say(f"RayJob {job['metadata']['name']}: {state(job)}, {status.get('reason') or status.get('jobStatus') or '-'}")
    if status.get("message"):
        say(" ".join(str(status["message"]).split())[:2000])
    code = _driver_exit_code(status, token, wait)
    if code is None and status.get("jobStatus") == "SUCCEEDED":
        code = exits.COMMITTED
    if code is None and state(job) == "ValidationFailed":
        code = exits.USAGE
    if code is None:
        code = recorded()
    if code is None and status.get("jobStatus") == "STOPPED":
        code = exits.INTERRUPTED
    if code in (-_SIGINT, -_SIGTERM):
        code = exits.INTERRUPTED
    return code if code in exits.MEANING else exits.FAILED


def _driver_exit_code(status: dict[str, Any], token: str | None, wait: Callable[[float], None]) -> int | None:
    """From the dashboard, and print the end of the driver's log; None if it does not know or is gone."""
    if not status.get("dashboardURL") or not status.get("jobId"):
        return None
    dashboard = Dashboard(status["dashboardURL"], status["jobId"], token)
    for attempt in range(ATTEMPTS):
        if attempt:
            wait(WAIT_SECONDS)
        try:
            code = dashboard.details().get("driver_exit_code")
            _print_end(dashboard)
        except (httpx.HTTPError, ValueError) as error:
            note(f"the dashboard at {status['dashboardURL']} does not answer: {type(error).__name__}: {error}")
            continue
        return None if code is None else int(code)
    return None


def _print_end(dashboard: Dashboard) -> None:
    try:
        lines = dashboard.log().splitlines()
    except (httpx.HTTPError, ValueError, KeyError) as error:
        note(f"the log of the driver cannot be had: {type(error).__name__}: {error}")
        return
    for line in lines[-LINES:]:
        say(line)


def recorded_exit_code(config: Path | None, night: date, since: datetime) -> int | None:
    """The exit code in the run.json of a night, if the run is committed or ended after ``since``; else None.

    config: the file of options that the audit was given (``output``, ``name``). Raises AuditError if it is no such
    file, StorageAccessError.
    """
    if config is None:
        return None
    import yaml

    from jobs.storage import read_bytes
    from jobs.uris import join

    options = yaml.safe_load(config.read_text())
    if not isinstance(options, dict) or not isinstance(options.get("output"), str):
        raise AuditError(USAGE, f"{config}: no output is named in it")
    name = options.get("name") or "audit"
    try:
        record = json.loads(read_bytes(join(options["output"], "runs", night.isoformat(), name, "run.json")))
    except FileNotFoundError:
        return None
    finished = record.get("finished_at")
    ours = record.get("state") == "committed" or (finished and datetime.fromisoformat(finished) >= since)
    return record.get("exit_code") if ours else None
