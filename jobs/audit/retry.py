"""``retry-failed``: the rows whose error can pass are scored again, and the run gets a new version of its results.

The shards of the first start stay as they are; a retry has frozen rows and shards of its own, and the commit lays them
over. Killed at any point, the same command goes on: with the rows that were frozen, and the shards that are there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence, Set
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anomaly_core.bundle import Bundle
from anomaly_core.forms import Precision
from jobs.audit.commit import commit
from jobs.audit.committed import committed, retries, run_folder
from jobs.audit.config import AuditConfig
from jobs.audit.error_codes import ERROR_CODES
from jobs.audit.errors import PASSING
from jobs.audit.exits import USAGE, AuditError
from jobs.audit.lock import RunLock
from jobs.audit.plan import Plan, check_same, parts_of, upload_parts
from jobs.audit.proofs import Earlier
from jobs.audit.record import RunFolder, RunRecord, Unfinished, now
from jobs.audit.redecide import redecide
from jobs.audit.run import Outcome, judged, on_cluster, opened, tidy
from jobs.audit.shards import check_there, missing_shards
from jobs.audit.watcher import Watcher
from jobs.audit.work import work
from jobs.report.at_commit import report_at_commit
from jobs.storage import copy, exists, read_bytes, reading, scratch, write_bytes
from jobs.uris import join
from manifests.freeze import FrozenManifest, read_shard, refreeze

# Bad data stays bad, and an object that is not there was not there; a permission may have been given meanwhile.
RETRIED = PASSING | {"access_denied"}
# What somebody may have repaired since. Not what the manifest says, and not where images may come from: a run is bound
# to both.
REPAIRED = frozenset({*ERROR_CODES["fetch"], *ERROR_CODES["decode"]}) - {"not_allowed"}


def retry_failed(
    run: str, settings: dict[str, Any], watcher: Watcher | None = None, codes: Sequence[str] = ()
) -> Outcome:
    """Score the rows of a committed run again whose error can pass, and publish the next version of its results.

    run: URI of the run's folder. settings: of AuditConfig, those that change no result; the others are the run's.
    codes: errors that were repaired, besides those that can pass, such as missing_object.
    Raises AuditError: also if there is no such run, or it is not committed.
    """
    watcher = watcher or Watcher()
    folder = run_folder(run)
    if unknown := sorted(set(codes) - REPAIRED):
        raise AuditError(USAGE, f"--code {unknown[0]}: those that a retry can repair are {', '.join(sorted(REPAIRED))}")
    with on_cluster(), RunLock(folder.lock) as lock:
        record = committed(folder, "retry-failed")
        config = config_of(folder, record, settings)
        bundle, device, precision, doubts = opened(config)
        for warning in (*bundle.warnings, *doubts):
            watcher.said(warning)
        whole = FrozenManifest.from_dict(record.frozen)
        changes = check_same(config, record, parts_of(config, bundle, precision, whole), finished=False)
        plan = _plan(folder, record, whole, RETRIED | set(codes), watcher.said)
        if plan is None:
            watcher.said("no row failed for a reason that can pass; nothing to do")
            return Outcome(record.exit_code or 0, record)
        watcher.planned(plan)
        return _retried(config, folder, plan, whole, (bundle, precision, device), changes, watcher, lock)


def begin_version(folder: RunFolder, record: RunRecord, begun: Unfinished, ours: Callable[[], None]) -> None:
    """Write down that the next version of the results is begun, and keep the one that it will replace.

    Call it before anything that readers may see is written. ours: raises if the run is no longer ours.
    """
    ours()
    record.unfinished = begun
    record.save(folder)
    earlier = folder.earlier(record.version)
    if not exists(earlier):  # else it is being finished: the results may be the new ones
        copy(folder.results, earlier)


def config_of(folder: RunFolder, record: RunRecord, settings: dict[str, Any]) -> AuditConfig:
    """The settings that the run was begun with, and the budgets it was judged by, under those that are given now."""
    given = {key: value for key, value in settings.items() if value is not None}
    begun = {
        "manifest": record.manifest,
        "bundle": record.bundle,
        "output": folder.output,
        "run_date": date.fromisoformat(folder.run_date),
        "name": folder.name,
        "precision": record.parts["precision"],
        "max_failed": record.max_failed,
        "max_failed_per_category": record.max_failed_per_category,
        **record.parts["settings"],
    }
    return AuditConfig(**{key: value for key, value in (begun | given).items() if value is not None})


def _retried(
    config: AuditConfig,
    folder: RunFolder,
    plan: Plan,
    whole: FrozenManifest,
    models: tuple[Bundle, Precision, str],
    changes: list[dict[str, Any]],
    watcher: Watcher,
    lock: RunLock,
) -> Outcome:
    record, started = plan.record, time.monotonic()
    bundle, precision, device = models
    earlier = Earlier(folder.results, folder.parts(whole.parts))
    work(config, plan, bundle, precision, device, watcher, lock.glance, watcher.failing, earlier)
    version = record.version
    begin_version(folder, record, Unfinished(command="retry-failed"), lock.check)
    before = record.counts
    laid_over = [*retries(folder, record), (folder.retry(len(record.retries) + 2), plan.frozen)]
    with scratch() as local, redecide(config, folder, bundle, record, replaced=version) as again:
        record.counts = commit(
            folder,
            record,
            whole,
            laid_over,
            ours=lock.check,
            retrying=True,
            redecide=again,
            version=version + 1,
            kept=local / "table",
        )
        tidy(folder)
        record.exit_code, record.exit_reason = judged(config, record)
        record.code_changes.extend(changes)
        record.retries.append(
            {
                "version": version + 1,
                "published_at": now(),
                "rows": plan.frozen.rows,
                "recovered": before["status"].get("failed", 0) - record.counts["status"].get("failed", 0),
                "seconds": round(time.monotonic() - started, 3),
                "frozen": plan.frozen.to_dict(),
            }
        )
        record.unfinished = None
        # Before the record, as an audit's.
        report = report_at_commit(folder, record, config.bundle, local / "table", lock.check, watcher.said)
    lock.check()
    record.save(folder)
    done = len(plan.frozen.shards) - len(plan.missing)
    return Outcome(record.exit_code, record, len(plan.missing), done, report=report)


def _plan(
    folder: RunFolder, record: RunRecord, whole: FrozenManifest, codes: Set[str], said: Callable[[str], None]
) -> Plan | None:
    """The retry that was begun and not finished, else a new one; None if no row failed with one of the codes. said:
    told if the former is without some of the codes."""
    again, before = folder.retry(len(record.retries) + 2), [(folder, whole), *retries(folder, record)]
    try:
        begun = json.loads(read_bytes(again.record))
        frozen = FrozenManifest.from_dict(begun)
    except FileNotFoundError:
        failed = _failed(folder, codes)
        if not failed:
            return None
        check_there(before)
        with scratch() as local:
            rows = sum(map(len, failed.values()))
            frozen = refreeze(_rows(folder, whole, failed), local / "frozen", rows, whole)
            upload_parts(local / "frozen", again)
        write_bytes(again.record, json.dumps(frozen.to_dict() | {"codes": sorted(codes)}).encode())
        return Plan(again, record, frozen, tuple(shard.index for shard in frozen.shards))
    check_there(before)
    if others := sorted(codes - set(begun.get("codes", RETRIED))):
        said(f"a retry without {', '.join(others)} was begun and is finished now; repeat the command for those")
    return Plan(again, record, frozen, missing_shards(again, record, frozen))


def _failed(folder: RunFolder, codes: Set[str]) -> dict[int, set[str]]:
    """The image_ids of the rows that failed with one of the codes, by shard."""
    with reading(folder.results) as file:
        table = pq.read_table(file, columns=["shard", "image_id", "status", "error_code"])
    passing = pc.and_(pc.equal(table["status"], "failed"), pc.is_in(table["error_code"], pa.array(sorted(codes))))
    found: dict[int, set[str]] = {}
    for row in table.filter(passing).select(["shard", "image_id"]).to_pylist():
        found.setdefault(row["shard"], set()).add(row["image_id"])
    return found


def _rows(folder: RunFolder, frozen: FrozenManifest, failed: dict[int, set[str]]) -> Iterator[pa.RecordBatch]:
    """These rows of the frozen manifest. A duplicate has the name of its first, and stays what it is."""
    for shard in frozen.shards:
        if shard.index not in failed:
            continue
        uri = join(folder.manifest, shard.part)
        with reading(uri) as file:
            rows = read_shard(file, shard.row_group)
        named = pc.is_in(rows["image_id"], pa.array(sorted(failed[shard.index])))
        yield from rows.filter(pc.and_(named, pc.is_null(rows["problem_code"]))).to_batches()
