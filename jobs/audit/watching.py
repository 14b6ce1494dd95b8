"""A run on its way, as a person at the terminal, the log and the metrics are told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.audit import events
from jobs.audit.config import ErrorBudget
from jobs.audit.plan import Plan
from jobs.audit.progress import Progress, bar
from jobs.audit.receipt import Receipt
from jobs.audit.run import Outcome
from jobs.audit.watcher import Watcher
from jobs.monitoring.logs import about_run, structured
from jobs.notify.notifier import Notifier
from jobs.terminal import console, note

if TYPE_CHECKING:
    from jobs.monitoring.run_metrics import RunMetrics


class Watching:
    """What is told of a run while it goes on: to the person, the log, and whoever scrapes its metrics.

    notifier: learns which run it is. failing: as of Watcher. began: when the command began, seconds since the epoch.
    budget: of failed rows, of the whole manifest.
    """

    def __init__(
        self,
        notifier: Notifier,
        failing: Callable[[BaseException], None],
        began: float,
        metrics: RunMetrics | None,
        budget: ErrorBudget | None = None,
    ) -> None:
        self.notifier, self.failing, self.began, self.metrics, self.budget = notifier, failing, began, metrics, budget
        self.totals: Counter[str] = Counter()
        self.progress = bar(console, shown=console.is_terminal and not structured())
        self.task = self.progress.add_task("preparing", total=None, seen="")

    def watch(self, run: Callable[[Watcher], Outcome]) -> Outcome:
        """Run it, and watch."""
        moved = self.metrics.moved if self.metrics else lambda movement: None
        with self.progress:
            return run(Watcher(note, self._planned, self._shard_done, self.failing, moved, self.began))

    def _tell(self) -> None:
        at = self.progress.tasks[0]
        if not console.is_terminal and at.total is not None:  # in a log, a line for each shard
            console.print(Progress(int(at.completed), int(at.total), at.fields["seen"]).line(), soft_wrap=True)

    def _planned(self, plan: Plan) -> None:
        self.notifier.folder = plan.folder
        about_run(plan.record.run_id)
        if self.metrics:
            self.metrics.planned(plan, self.budget)
        if structured():
            events.planned(plan)
            return
        done = plan.frozen.rows - plan.rows_to_do
        self.progress.update(self.task, description="images", total=plan.frozen.rows, completed=done)
        resumed = plan.record.starts and plan.record.state == "running"
        console.print(
            f"run {plan.record.run_id}: {plan.frozen.rows:,} rows in {len(plan.frozen.shards):,} shards, "
            f"{len(plan.missing):,} to do" + (f" (resumed, start {plan.record.starts + 1})" if resumed else "")
        )
        self._tell()

    def _shard_done(self, receipt: Receipt) -> None:
        if self.metrics:
            self.metrics.shard_done(receipt)
        if structured():
            return  # the worker that wrote it has told it
        self.totals.update(receipt.decisions)
        seen = ", ".join(f"{n:,} {word}" for word, n in sorted(self.totals.items()))
        self.progress.update(self.task, advance=receipt.rows, seen=seen)
        self._tell()
