"""The audit from end to end; it reads like the diagram:

manifest -> freeze -> shards -> load -> route + extract -> group by category -> score -> render -> write shard -> commit
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayTaskError

from anomaly_core.bundle import Bundle
from anomaly_core.bundle_manifest import BundleError
from anomaly_core.forms import Precision
from jobs.audit import exits
from jobs.audit.commit import commit
from jobs.audit.committed import retries
from jobs.audit.config import AuditConfig
from jobs.audit.declared import undeclared
from jobs.audit.exits import AuditError
from jobs.audit.figures import timings
from jobs.audit.forecast import Forecast, forecast
from jobs.audit.lock import RunLock
from jobs.audit.plan import (
    Plan,
    bound_record,
    check_same,
    choose_folder,
    freeze_manifest,
    new_run,
    parts_of,
    source_warning,
)
from jobs.audit.record import RunFolder, RunRecord, now
from jobs.audit.redecide import redecide
from jobs.audit.shards import missing_shards
from jobs.audit.stages import cluster_device
from jobs.audit.watcher import Watcher
from jobs.audit.work import work
from jobs.bundles import read_bundle, run_precision
from jobs.cluster_session import joins_cluster, ray_session
from jobs.monitoring.logs import announce
from jobs.report.at_commit import report_at_commit
from jobs.storage import exists, scratch, sweep, write_bytes
from jobs.storage_errors import NoStorage, StorageAccessError
from jobs.uris import parent
from manifests.freeze import FrozenManifest
from manifests.secrets import redacted

# How the lines begin that Ray Data 2.60 adds to what a worker raised.
_ADVICE = ("Failed to apply UDF transform after", "To change retry attempts")


@dataclass(frozen=True)
class Outcome:
    """How an audit ended: exit code, the run's record, shards scored now and shards that were there before, and the URI
    of the report that was made."""

    code: int
    record: RunRecord
    scored_shards: int = 0
    earlier_shards: int = 0
    warnings: tuple[str, ...] = ()
    report: str | None = None


def audit(config: AuditConfig, watcher: Watcher | None = None) -> Outcome:
    """Run, resume or report a night's audit.

    Raises AuditError with the exit code; whatever is written by then is gone on with by a rerun.
    """
    with on_cluster():
        return _audit(config, watcher or Watcher())


def _audit(config: AuditConfig, watcher: Watcher) -> Outcome:
    bundle, device, precision, doubts = opened(config)
    for warning in (*bundle.warnings, *doubts):
        watcher.said(warning)
    folder = choose_folder(config, bundle)
    with RunLock(folder.lock) as lock:
        plan = _plan(config, bundle, folder, precision, device)
        for warning in plan.warnings:
            watcher.said(warning)
        if plan.record.state == "committed":
            watcher.said(f"run {plan.record.run_id} is committed already; nothing to do")
            if plan.record.unfinished is not None:
                watcher.said(plan.record.unfinished.told(folder.uri))
            return Outcome(plan.record.exit_code or 0, plan.record, 0, len(plan.frozen.shards), plan.warnings)
        watcher.planned(plan)
        started = time.monotonic()

        told: list[BaseException] = []
        saved = False

        def failing(error: BaseException) -> None:
            if not told:
                told.append(error)
                watcher.failing(error)  # first: the storage may hang
                if not (saved and isinstance(error, KeyboardInterrupt)):
                    _abandon(plan, error, lock)

        try:
            plan.record.starts += 1
            plan.record.save(plan.folder)
            figures = work(config, plan, bundle, precision, device, watcher, lock.glance, failing)
            outcome = _finish(config, bundle, plan, figures, started, watcher, lock)
            saved = True  # the record says committed, and an interrupt in the last step is not to say anything else
            write_bytes(plan.folder.success, b"")
            return outcome
        except BaseException as error:
            failing(error)
            raise


@dataclass(frozen=True)
class Preview:
    """What an audit would do. to_do: rows without those of shards that are there from an earlier start.

    expected: None if nothing is to do, or no image of a sample could be read. warnings: what is doubtful about it.
    """

    frozen: FrozenManifest
    to_do: int
    bundle: Bundle
    device: str
    precision: Precision
    folder: RunFolder
    expected: Forecast | None
    warnings: tuple[str, ...] = ()


def dry_run(config: AuditConfig) -> Preview:
    """Check everything that an audit checks before it starts, score a sample, and write nothing. Raises AuditError."""
    with on_cluster(), scratch() as local:
        bundle, device, precision, doubts = opened(config)
        folder = choose_folder(config, bundle)
        frozen = freeze_manifest(config, local)
        record, planned, to_do = bound_record(folder), frozen, frozen.rows
        if record is not None:
            finished = exists(folder.success)
            check_same(config, record, parts_of(config, bundle, precision, frozen), finished=finished)
            planned = FrozenManifest.from_dict(record.frozen)  # a run goes on with the manifest that it began with
            missing = set() if finished else set(missing_shards(folder, record, planned))
            to_do = sum(shard.rows for shard in planned.shards if shard.index in missing)
        parts = local / "frozen"
        expected = forecast(config, bundle, device, precision, frozen, parts, to_do) if to_do else None
        warnings = (*bundle.warnings, *doubts, *undeclared(bundle, frozen, parts))
    return Preview(planned, to_do, bundle, device, precision, folder, expected, warnings)


def on_cluster() -> AbstractContextManager[None]:
    """A cluster that is there is joined first, because it decides on the device; one of our own starts when needed."""
    return ray_session() if joins_cluster() else nullcontext()


def opened(config: AuditConfig) -> tuple[Bundle, str, Precision, list[str]]:
    """The verified bundle, the device and precision to score in, and what is doubtful about them."""
    try:
        device = cluster_device(config.device, grows=config.extractors is not None)
        bundle = read_bundle(config.bundle, config.backbone_weights, config.backbone_form)
        precision, doubts = run_precision(bundle, config.precision, device)
    except (BundleError, ValueError) as error:
        raise AuditError(exits.USAGE, str(error)) from error
    return bundle, device, precision, doubts


def _plan(config: AuditConfig, bundle: Bundle, folder: RunFolder, precision: Precision, device: str) -> Plan:
    record = bound_record(folder)
    if record is None:
        record, frozen = new_run(config, bundle, folder, precision, device)
        doubts = tuple(one for one in record.warnings if one not in bundle.warnings)
        return Plan(folder, record, frozen, tuple(shard.index for shard in frozen.shards), doubts)
    frozen = FrozenManifest.from_dict(record.frozen)
    finished = exists(folder.success)
    parts = parts_of(config, bundle, precision, frozen)
    changes = check_same(config, record, parts, finished=finished)
    if finished:
        return Plan(folder, record, frozen, ())
    warnings = source_warning(config, record)
    record.state = "running"
    record.code_changes.extend(changes)
    record.warnings = sorted({*record.warnings, *warnings})
    return Plan(folder, record, frozen, missing_shards(folder, record, frozen), tuple(warnings))


def _finish(
    config: AuditConfig,
    bundle: Bundle,
    plan: Plan,
    figures: dict[str, Any],
    started: float,
    watcher: Watcher,
    lock: RunLock,
) -> Outcome:
    scored, began = time.monotonic(), watcher.began
    record = plan.record
    record.self_test = figures.get("self_test", record.self_test)
    # A run that lacks its _SUCCESS, and nothing else, may have been retried, and its decisions taken again.
    laid_over = retries(plan.folder, record)
    with scratch() as local, redecide(config, plan.folder, bundle, record) as again:
        record.counts = commit(
            plan.folder,
            record,
            plan.frozen,
            laid_over,
            ours=lock.check,
            redecide=again,
            version=record.version,
            kept=local / "table",
        )
        tidy(plan.folder)
        record.exit_code, record.exit_reason = judged(config, record)
        before = max(0.0, time.time() - began - (time.monotonic() - started))
        price = config.price_per_node_hour
        record.timings = timings(started, scored, time.monotonic(), plan.rows_to_do, figures, price, began, before)
        record.state, record.finished_at = "committed", now()
        # Before the record and _SUCCESS: killed meanwhile, the same command commits again and makes it, so that a run
        # that is finished has its report. And it is no step that can fail: the results are published by now.
        committed = time.monotonic()
        report = report_at_commit(plan.folder, record, config.bundle, local / "table", lock.check, watcher.said)
    record.timings["report_seconds"] = round(time.monotonic() - committed, 3)
    lock.check()
    record.save(plan.folder)
    done = len(plan.frozen.shards) - len(plan.missing)
    return Outcome(record.exit_code, record, len(plan.missing), done, plan.warnings, report)


def judged(config: AuditConfig, record: RunRecord) -> tuple[int, str]:
    """Exit code and reason of a committed run: whether its failures, duplicates aside, are within the error budget.

    Rows without a category have all failed, and are in the budget of none. The budgets go into ``record``.
    """
    record.max_failed, record.max_failed_per_category = config.max_failed, config.max_failed_per_category
    counts = record.counts
    failed, rows, rows_of = sum(counts["failed_by_category"].values()), record.budgeted, record.budgeted_by_category
    said = f"{failed} failed of {rows}, budget {config.max_failed}"
    exceeded = config.max_failed.exceeded(failed, rows)
    if config.max_failed_per_category is not None:
        over = [
            f"{category} {count} of {rows_of[category]}"
            for category, count in counts["failed_by_category"].items()
            if category and config.max_failed_per_category.exceeded(count, rows_of[category])
        ]
        exceeded = exceeded or bool(over)
        said += f"; of each category {config.max_failed_per_category}"
        said += f", more in {', '.join(over)}" if over else ""
    code = exits.BUDGET_EXCEEDED if exceeded else exits.COMMITTED
    return code, f"{exits.MEANING[code]} ({said})"


def tidy(folder: RunFolder) -> None:
    """Remove the temporary files of writers that were killed, in this start or an earlier one."""
    # Others may be asking for the lock now, or recording verdicts.
    sweep(folder.uri, lambda stem: stem != "lock", but="verdicts")
    sweep(folder.heatmaps)
    sweep(parent(folder.results), lambda stem: stem == folder.name)  # other runs publish there too


def _abandon(plan: Plan, error: BaseException, lock: RunLock) -> None:
    """Write down how a run ended that did not commit, if it is still ours and the storage lets us; the error itself
    goes on."""
    record = plan.record
    code = exit_code(error)
    if code == exits.LOCKED:
        return  # the run is another process's, and so is its record
    interrupted = isinstance(error, KeyboardInterrupt)
    record.state = "interrupted" if interrupted else "failed"
    record.exit_code = exits.INTERRUPTED if interrupted else code
    record.exit_reason = " ".join(redacted(reason_of(error)).split())[:500]
    record.finished_at = now()
    try:
        lock.check()  # it may have been lost before the error came, which says nothing of it
        record.save(plan.folder)
    except (AuditError, StorageAccessError, OSError) as second:
        announce(f"run.json could not be written: {second}")


def reason_of(error: BaseException) -> str:
    """What an error says, for a person, also one that Ray brings from a worker: that one comes with a page of traceback
    before it and Ray's advice behind it."""
    cause: BaseException | None = getattr(error, "cause", None)
    lines = str(cause or error).strip().splitlines()
    while lines and (not lines[-1].strip() or lines[-1].startswith(_ADVICE)):
        lines.pop()
    if cause is None and isinstance(error, RayTaskError):
        lines = lines[-1:]
    return "\n".join(lines) or type(cause or error).__name__


def exit_code(error: BaseException) -> int:
    """The exit code of an error, also of one that Ray brings from a worker."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, AuditError):
            return current.code
        if isinstance(current, StorageAccessError):
            return exits.NO_ACCESS
        if isinstance(current, NoStorage):
            return exits.USAGE
        pending += [current.__cause__, current.__context__, getattr(current, "cause", None)]
    return exits.FAILED
