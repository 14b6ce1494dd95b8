"""The audit from end to end; it reads like the diagram:

manifest -> freeze -> shards -> load -> route + extract -> group by category -> score -> render -> write shard -> commit
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayTaskError

from anomaly_core.bundle import Bundle
from anomaly_core.bundle_manifest import BundleError, cae_file
from anomaly_core.device import Precision
from anomaly_core.preprocess import Limits
from jobs.access import AllowList
from jobs.audit import exits
from jobs.audit.commit import commit
from jobs.audit.config import AuditConfig
from jobs.audit.exits import AuditError
from jobs.audit.extract import ExtractSettings
from jobs.audit.figures import timings
from jobs.audit.forecast import Forecast, forecast
from jobs.audit.load import LoadSettings
from jobs.audit.lock import RunLock
from jobs.audit.plan import (
    Plan,
    bound_record,
    check_same,
    choose_folder,
    freeze_manifest,
    missing_shards,
    new_run,
    parts_of,
    source_warning,
)
from jobs.audit.record import RunFolder, RunRecord, now
from jobs.audit.registry import Registry, ScorerSettings
from jobs.audit.render import RenderSettings
from jobs.audit.self_test import check, passed
from jobs.audit.stages import SHARDS_AT_ONCE, Resources, chain, cluster_device, divide, machine
from jobs.audit.write import WriteSettings
from jobs.bundles import read_bundle, run_precision
from jobs.cluster_session import joins_cluster, ray_session, store_bytes
from jobs.storage import StorageAccessError, exists, scratch, write_bytes
from manifests.freeze import FrozenManifest


@dataclass(frozen=True)
class Outcome:
    """How an audit ended: exit code, the run's record, shards scored now and shards that were there before."""

    code: int
    record: RunRecord
    scored_shards: int = 0
    earlier_shards: int = 0
    warnings: tuple[str, ...] = ()


@dataclass
class Watcher:
    """What a caller wants to be told; the defaults tell nobody. began: when it began, seconds since the epoch."""

    said: Callable[[str], None] = field(default=lambda text: None)
    planned: Callable[[Plan], None] = field(default=lambda plan: None)
    shard_done: Callable[[int, dict[str, int]], None] = field(default=lambda rows, counts: None)
    began: float = field(default_factory=time.time)


def audit(config: AuditConfig, watcher: Watcher | None = None) -> Outcome:
    """Run, resume or report a night's audit.

    Raises AuditError with the exit code; whatever is written by then is gone on with by a rerun.
    """
    with _cluster():
        return _audit(config, watcher or Watcher())


def _audit(config: AuditConfig, watcher: Watcher) -> Outcome:
    bundle, device, precision, doubts = _open(config)
    for warning in (*bundle.warnings, *doubts):
        watcher.said(warning)
    folder = choose_folder(config, bundle)
    with RunLock(folder.lock) as lock:
        plan = _plan(config, bundle, folder, precision, device)
        for warning in plan.warnings:
            watcher.said(warning)
        if plan.record.state == "committed":
            watcher.said(f"run {plan.record.run_id} is committed already; nothing to do")
            return Outcome(plan.record.exit_code or 0, plan.record, 0, len(plan.frozen.shards), plan.warnings)
        watcher.planned(plan)
        started = time.monotonic()
        try:
            figures = _score(config, plan, bundle, precision, device, watcher)
            lock.check()
            return _finish(config, plan, figures, started, watcher.began)
        except BaseException as error:
            _abandon(plan, error)
            raise


@dataclass(frozen=True)
class Preview:
    """What an audit would do. to_do: rows without those of shards that are there from an earlier start.

    expected: None if nothing is to do, or no image of a sample could be read.
    """

    frozen: FrozenManifest
    to_do: int
    bundle: Bundle
    device: str
    precision: Precision
    folder: RunFolder
    expected: Forecast | None


def dry_run(config: AuditConfig) -> Preview:
    """Check everything that an audit checks before it starts, score a sample, and write nothing. Raises AuditError."""
    with _cluster(), scratch() as local:
        bundle, device, precision, _ = _open(config)
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
    return Preview(planned, to_do, bundle, device, precision, folder, expected)


def _cluster() -> AbstractContextManager[None]:
    """A cluster that is there is joined first, because it decides on the device; one of our own starts when needed."""
    return ray_session() if joins_cluster() else nullcontext()


def _open(config: AuditConfig) -> tuple[Bundle, str, Precision, list[str]]:
    """The verified bundle, the device and precision to score in, and what is doubtful about them."""
    try:
        device = cluster_device(config.device)
        bundle = read_bundle(config.bundle, config.backbone_weights, config.backbone_form)
        precision, doubts = run_precision(bundle, config.precision, device)
    except (BundleError, ValueError) as error:
        raise AuditError(exits.USAGE, str(error)) from error
    return bundle, device, precision, doubts


def _plan(config: AuditConfig, bundle: Bundle, folder: RunFolder, precision: Precision, device: str) -> Plan:
    record = bound_record(folder)
    if record is None:
        record, frozen = new_run(config, bundle, folder, precision, device)
        return Plan(folder, record, frozen, tuple(shard.index for shard in frozen.shards))
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


def _score(
    config: AuditConfig, plan: Plan, bundle: Bundle, precision: Precision, device: str, watcher: Watcher
) -> dict[str, Any]:
    plan.record.starts += 1
    plan.record.save(plan.folder)
    if not plan.missing:
        return {}
    files = sum(map(len, bundle.files.values()))
    with ray_session(config.object_store_memory or store_bytes(files)):
        resources = divide(device, config.scorers)
        scoring = _scorer_settings(bundle, precision, device, resources)
        registry = _registry(bundle, scoring)
        try:
            if config.scoring == "actors":
                registry.start_first.remote()
            receipts = _receipts(config, plan, bundle, scoring, registry, resources)
            for number, (rows, counts) in enumerate(receipts):
                if number == 0:  # whoever scored it had passed
                    plan.record.self_test = passed(registry)
                    plan.record.save(plan.folder)
                watcher.shard_done(rows, counts)
            figures: dict[str, Any] = ray.get(registry.figures.remote())
        except RayTaskError:
            check(registry)  # Ray Data drops the error that a stage raised, and keeps its text
            raise
        finally:
            ray.kill(registry)  # and with it its scorers, which would hold their GPUs while the run is committed
        return {**figures, "machine": machine(device, resources.extractors, config.scoring == "extractor")}


def _receipts(
    config: AuditConfig,
    plan: Plan,
    bundle: Bundle,
    scoring: ScorerSettings,
    registry: Any,
    resources: Resources,
) -> Iterator[tuple[int, dict[str, int]]]:
    folder, frozen, record = plan.folder, plan.frozen, plan.record
    rows_by_shard = {shard.index: shard.rows for shard in frozen.shards}
    missing = set(plan.missing)
    shards = [
        {"shard": s.index, "part": s.part, "row_group": s.row_group, "rows": s.rows}
        for s in frozen.shards
        if s.index in missing
    ]
    load = LoadSettings(
        manifest_uri=folder.manifest,
        allowed=AllowList.of(config.manifest, config.allow),
        limits=Limits(config.max_bytes, config.max_pixels),
        preprocessing=bundle.preprocessing,
        threads=config.fetch_threads,
        decode_timeout=config.decode_timeout,
    )
    extract = ExtractSettings(
        calibration={c: scores for c in bundle.categories if (scores := bundle.calibration_scores(c))},
        rule=bundle.decision_rule(config.min_confidence),
        trust_declared=config.trust_declared,
        device=scoring.device,
        precision=scoring.precision,
        threads=resources.threads,
        shards_at_once=SHARDS_AT_ONCE,
        micro_batch=config.micro_batch,
        extractors=resources.extractors,
        own_scorer=scoring if config.scoring == "extractor" else None,
    )
    write = WriteSettings(
        folder=folder.shards,
        extras=frozen.extras.serialize().to_pybytes(),
        rows_by_shard={index: rows_by_shard[index] for index in plan.missing},
        run_id=record.run_id,
        fingerprint=record.fingerprint,
        bundle_digest=bundle.digest,
        render=RenderSettings(folder.heatmaps, config.heatmaps),
    )
    dataset = chain(shards, load, extract, write, registry, resources)
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        for receipt in batch.to_pylist():
            if receipt["shard"] not in missing or receipt["rows"] != rows_by_shard[receipt["shard"]]:
                raise AuditError(exits.FAILED, f"a receipt that was not planned: {receipt}; run the command again")
            missing.discard(receipt["shard"])
            yield receipt["rows"], json.loads(receipt["counts"])
    if missing:
        raise AuditError(exits.FAILED, f"{len(missing)} shards came back without a receipt; run the command again")


def _scorer_settings(bundle: Bundle, precision: Precision, device: str, resources: Resources) -> ScorerSettings:
    return ScorerSettings(
        score=bundle.score,
        device=device,
        precision=precision,
        processes=resources.scorers,
        threads=resources.threads,
        cpus=resources.scorer_cpus,
        gpus=resources.scorer_gpus,
    )


def _registry(bundle: Bundle, settings: ScorerSettings) -> Any:
    # The files travel through the object store: verified once, here, and no node needs the bundle's storage.
    cae_files = {category: ray.put(bundle.files[cae_file(category)]) for category in bundle.categories}
    return (
        ray.remote(Registry)
        .options(num_cpus=0, max_concurrency=8)
        .remote(settings, [ray.put(bundle.without_autoencoders())], cae_files)
    )


def _finish(config: AuditConfig, plan: Plan, figures: dict[str, Any], started: float, began: float) -> Outcome:
    scored = time.monotonic()
    record = plan.record
    record.counts = commit(plan.folder, record, plan.frozen)
    failed = sum(n for code, n in record.counts["failed_by_code"].items() if code != "manifest/duplicate")
    exceeded = config.max_failed.exceeded(failed, plan.frozen.rows)
    code = exits.BUDGET_EXCEEDED if exceeded else exits.COMMITTED
    rows = sum(s.rows for s in plan.frozen.shards if s.index in set(plan.missing))
    before = max(0.0, time.time() - began - (time.monotonic() - started))
    price = config.price_per_node_hour
    record.timings = timings(started, scored, time.monotonic(), rows, figures, price, began, before)
    record.state, record.finished_at = "committed", now()
    record.exit_code = code
    record.exit_reason = f"{exits.MEANING[code]} ({failed} failed of {plan.frozen.rows}, budget {config.max_failed})"
    record.save(plan.folder)
    write_bytes(plan.folder.success, b"")
    return Outcome(code, record, len(plan.missing), len(plan.frozen.shards) - len(plan.missing), plan.warnings)


def _abandon(plan: Plan, error: BaseException) -> None:
    """Write down how a run ended that did not commit, if the storage still lets us; the error itself goes on."""
    record = plan.record
    interrupted = isinstance(error, KeyboardInterrupt)
    record.state = "interrupted" if interrupted else "failed"
    record.exit_code = exits.INTERRUPTED if interrupted else exit_code(error)
    record.exit_reason = " ".join(str(error).split())[:500] or type(error).__name__
    record.finished_at = now()
    try:
        record.save(plan.folder)
    except (StorageAccessError, OSError) as second:
        print(f"line-audit: run.json could not be written: {second}", flush=True)


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
        pending += [current.__cause__, current.__context__, getattr(current, "cause", None)]
    return exits.FAILED
