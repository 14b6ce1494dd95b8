"""Metrics of a run while it runs, in its driver.

Counters count what this start has done: a shard counts once, by the receipt that the driver checks against its plan,
however often it was tried, and what earlier starts wrote is told apart. What the stages spend comes with the looks that
the run takes anyway, every ten seconds; a scrape asks nobody and only reads what is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable

import ray
from prometheus_client.registry import Collector

from jobs.audit.config import ErrorBudget
from jobs.audit.error_codes import known
from jobs.audit.plan import Plan
from jobs.audit.receipt import Outcome, Receipt
from jobs.audit.record import code_version
from jobs.audit.stall import Movement
from jobs.monitoring.catalogue import DIGITS, RUN, Exposition, Family

NO_CATEGORY = "(none)"
PHASES = ("starting", "scoring", "committing", "ended")

_log = logging.getLogger(__name__)


class RunMetrics(Collector):
    """Keeps what a command is told by its run, and gives it to whoever scrapes. Its methods are called from several
    threads, and raise nothing."""

    def __init__(self, command: str, began: float | None = None):
        """command: its name. began: when it began, seconds since the epoch; None for now."""
        self._command, self._began = command, time.time() if began is None else began
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._earlier_rows = 0
        self._max_failed: float | None = None
        self._outcomes: Counter[Outcome] = Counter()
        self._shards = 0
        self._movement = Movement(0, {}, {})
        self._moved_at: float | None = None
        self._looked_at: float | None = None
        self._resources: dict[str, tuple[float, float]] = {}
        self._exit_code: int | None = None

    def planned(self, plan: Plan, budget: ErrorBudget | None = None) -> None:
        """The run is known. budget: of failed rows, if it is one of the plan's rows."""
        with self._lock:
            self._plan, self._earlier_rows = plan, plan.frozen.rows - plan.rows_to_do
            if budget is not None:
                share = (budget.share or 0.0) * plan.frozen.budgeted
                self._max_failed = share if budget.count is None else budget.count

    def shard_done(self, receipt: Receipt) -> None:
        """A shard was written."""
        with self._lock:
            self._outcomes.update(receipt.outcomes)
            self._shards, self._moved_at = self._shards + 1, time.time()

    def moved(self, movement: Movement) -> None:
        """How far the stages are. Asks Ray for the resources in use, so call it where that may take a moment."""
        try:
            free, whole = ray.available_resources(), ray.cluster_resources()
        except Exception as error:  # of figures for people: the run goes on, and they stay as they were
            _log.warning("no figures of the cluster: %s", error)
            free = whole = {}
        with self._lock:
            before, self._movement = self._movement, movement
            self._looked_at = time.time()
            if movement.progress != before.progress:
                self._moved_at = self._looked_at
            if whole:
                self._resources = {name: (whole[name], free.get(name, 0.0)) for name in whole}

    def ended(self, code: int) -> None:
        """The command has ended with an exit code."""
        with self._lock:
            self._exit_code = code

    def collect(self) -> Iterable[Family]:
        """What a scrape gets."""
        found = Exposition(RUN)
        with self._lock:
            self._of_run(found)
            self._of_rows(found)
            self._of_stages(found)
            self._of_cluster(found)
        return found.families()

    def _of_run(self, found: Exposition) -> None:
        if self._plan is not None:
            record = self._plan.record
            found.add(
                "line_audit_run_info",
                1,
                record.run_id,
                self._command,
                record.parts["bundle"][:DIGITS],
                code_version()["source"][:DIGITS],
                record.parts["precision"],
                record.device,
            )
        now = self._phase()
        for phase in PHASES:
            found.add("line_audit_run_phase", phase == now, phase)
        found.add("line_audit_run_start_timestamp_seconds", self._began)
        found.add("line_audit_run_exit_code", self._exit_code)
        found.add("line_audit_run_max_failed_rows", self._max_failed)

    def _phase(self) -> str:
        if self._exit_code is not None:
            return "ended"
        if self._plan is None:
            return "starting"
        return "scoring" if self._shards < len(self._plan.missing) else "committing"

    def _of_rows(self, found: Exposition) -> None:
        if self._plan is not None:
            frozen, missing = self._plan.frozen, len(self._plan.missing)
            found.add("line_audit_run_rows", frozen.rows)
            found.add("line_audit_run_earlier_rows", self._earlier_rows)
            in_hand = {stage: self._movement.in_hand.get(stage, 0) for stage in ("load", "extract", "write")}
            waiting = max(0, missing - self._shards - sum(in_hand.values()))
            states = {"earlier": len(frozen.shards) - missing, "waiting": waiting, **in_hand}
            for state, count in (states | {"written": self._shards}).items():
                found.add("line_audit_shards", count, state)
        images: Counter[tuple[str, str, str]] = Counter()
        failures: Counter[tuple[str, str]] = Counter()
        for outcome, count in self._outcomes.items():
            status = "failed" if outcome.stage else "scored"
            images[status, outcome.category or NO_CATEGORY, outcome.decision] += count
            if outcome.stage:
                failures[known(outcome.stage, outcome.code)] += count
        for labels, count in sorted(images.items()):
            found.add("line_audit_images_total", count, *labels)
        for of, count in sorted(failures.items()):
            found.add("line_audit_failures_total", count, *of)

    def _of_stages(self, found: Exposition) -> None:
        for stage, spent in self._movement.spent.items():
            found.add("line_audit_stage_seconds_total", max(0.0, spent.wall - spent.waited), stage)
            found.add("line_audit_stage_cpu_seconds_total", spent.cpu, stage)
            found.add("line_audit_stage_waited_seconds_total", spent.waited, stage)
            found.add("line_audit_stage_images_total", spent.rows, stage)
        found.add("line_audit_shard_retries_total", self._movement.tried_again)
        found.add("line_audit_last_movement_timestamp_seconds", self._moved_at)
        found.add("line_audit_last_look_timestamp_seconds", self._looked_at)

    def _of_cluster(self, found: Exposition) -> None:
        for resource in ("CPU", "GPU"):
            whole, free = self._resources.get(resource, (None, None))
            found.add("line_audit_cluster_capacity", whole, resource)
            found.add("line_audit_cluster_free", free, resource)
        whole, free = self._resources.get("object_store_memory", (None, None))
        found.add("line_audit_object_store_capacity_bytes", whole)
        found.add("line_audit_object_store_used_bytes", None if whole is None or free is None else whole - free)
