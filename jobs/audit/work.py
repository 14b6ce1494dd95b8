"""The missing shards of a run, taken through the chain on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ray

from anomaly_core.bundle import Bundle
from anomaly_core.forms import Precision
from anomaly_core.preprocess import Limits
from jobs.audit import exits
from jobs.audit.config import AuditConfig
from jobs.audit.exits import AuditError
from jobs.audit.extract import ExtractSettings
from jobs.audit.load import LoadSettings
from jobs.audit.placement import Placement, Wanted, await_nodes, placement
from jobs.audit.plan import Plan
from jobs.audit.proofs import Earlier, Image, images_read
from jobs.audit.receipt import Receipt
from jobs.audit.record import shard_name
from jobs.audit.registry import Registry, ScorerSettings
from jobs.audit.render import RenderSettings
from jobs.audit.self_test import passed
from jobs.audit.stages import SHARDS_AT_ONCE, Resources, chain, divide, machine
from jobs.audit.stall import Movement, watched
from jobs.audit.watcher import Watcher
from jobs.audit.write import WriteSettings
from jobs.cluster_session import joins_cluster, on_this_node, ray_session, store_bytes
from jobs.monitoring.logs import for_workers
from jobs.uris import join

ANSWER_SECONDS = 60.0


def work(
    config: AuditConfig,
    plan: Plan,
    bundle: Bundle,
    precision: Precision,
    device: str,
    watcher: Watcher,
    check: Callable[[], None],
    failing: Callable[[BaseException], None],
    earlier: Earlier | None = None,
) -> dict[str, Any]:
    """Score and write the shards that are missing; returns what was spent, for the figures of the run.

    watcher: told of each, of what is waited for, and of how far the stages are. check: called now and then, raises if
    the run must end. failing: told of what is raised before Ray is shut down, because that takes longer than whoever
    interrupts may wait.
    earlier: of a retry, the run that it belongs to.
    Raises AuditError, also if nothing moves for ``config.stall_timeout`` seconds, and what a stage raises.
    """
    if not plan.missing:
        return {}
    files, joined = sum(map(len, bundle.files.values())), joins_cluster()
    with ray_session(config.object_store_memory or store_bytes(files)):
        where = placement(config.placement)
        if joined:
            await_nodes(Wanted(config.extractors, config.load_cpus, config.node_timeout), device, where, watcher.said)
        resources = _divided(config, device, where)
        scoring = _scorer_settings(bundle, precision, device, resources, where)
        registry = _registry(bundle, scoring, _read_before(config, plan, earlier))
        try:
            if config.scoring == "actors":
                registry.start_first.remote()
            others = earlier.parts if earlier else plan.folder.parts(plan.frozen.parts)
            receipts = _receipts(
                config, plan, bundle, scoring, registry, resources, where, check, others, watcher.moved
            )
            for receipt in receipts:
                watcher.shard_done(receipt)
            watcher.moved(ray.get(registry.movement.remote()))
            figures: dict[str, Any] = ray.get(registry.figures.remote()) | {"self_test": passed(registry)}
        except BaseException as error:
            failing(error)
            raise
        finally:
            ray.kill(registry)  # and with it its scorers, which would hold their GPUs while the run is committed
        return {**figures, "machine": machine(device, resources.extractors, config.scoring == "extractor", where)}


def _divided(config: AuditConfig, device: str, where: Placement) -> Resources:
    try:
        return divide(device, config.scorers, where, config.extractors)
    except ValueError as error:
        raise AuditError(exits.FAILED, f"{error}; the same command resumes the run") from error


def _receipts(
    config: AuditConfig,
    plan: Plan,
    bundle: Bundle,
    scoring: ScorerSettings,
    registry: Any,
    resources: Resources,
    where: Placement,
    check: Callable[[], None],
    others: tuple[str, ...],
    moved: Callable[[Movement], None],
) -> Iterator[Receipt]:
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
        allowed=config.allowed,
        limits=Limits(config.max_bytes, config.max_pixels),
        preprocessing=bundle.preprocessing,
        threads=config.fetch_threads,
        decode_timeout=config.decode_timeout,
        others=others,
        log=for_workers(),
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
        log=for_workers(),
    )
    write = WriteSettings(
        folder=folder.shards,
        extras=frozen.extras.serialize().to_pybytes(),
        rows_by_shard={index: rows_by_shard[index] for index in plan.missing},
        run_id=record.run_id,
        fingerprint=record.fingerprint,
        bundle_digest=bundle.digest,
        render=RenderSettings(folder.heatmaps, config.heatmaps),
        log=for_workers(),
    )
    dataset = chain(shards, load, extract, write, registry, resources, where)

    def movement() -> Movement:
        found: Movement = ray.get(registry.movement.remote(), timeout=ANSWER_SECONDS)
        moved(found)
        return found

    def state() -> str:
        since = ray.get(registry.begun.remote(), timeout=ANSWER_SECONDS)
        held = sorted((index, since[index]) for index in missing & since.keys())
        told = ", ".join(f"{index} for {seconds:.0f} s" for index, seconds in held[:8])
        free, whole = ray.available_resources(), ray.cluster_resources()
        room = ", ".join(f"{name} {free.get(name, 0):g} of {whole.get(name, 0):g}" for name in ("CPU", "GPU", "memory"))
        return f"shards in hand: {told or 'none'}{', ...' if len(held) > 8 else ''}; free of the cluster's: {room}"

    for batch in watched(
        iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow")),
        movement,
        state,
        config.stall_timeout,
        check,
    ):
        for receipt in map(Receipt.from_row, batch.to_pylist()):
            if receipt.shard not in missing or receipt.rows != rows_by_shard[receipt.shard]:
                raise AuditError(exits.FAILED, f"a receipt that was not planned: {receipt}; run the command again")
            missing.discard(receipt.shard)
            yield receipt
    if missing:
        raise AuditError(exits.FAILED, f"{len(missing)} shards came back without a receipt; run the command again")


def _scorer_settings(
    bundle: Bundle, precision: Precision, device: str, resources: Resources, where: Placement
) -> ScorerSettings:
    return ScorerSettings(
        score=bundle.score,
        device=device,
        precision=precision,
        processes=resources.scorers,
        threads=resources.threads,
        options={"num_cpus": resources.scorer_cpus, "num_gpus": resources.scorer_gpus} | where.models,
    )


def _read_before(config: AuditConfig, plan: Plan, earlier: Earlier | None) -> dict[str, Image]:
    """By storage, an image that an earlier start could read: what is left may be rows that nobody can."""
    missing = set(plan.missing)
    there = [shard.index for shard in plan.frozen.shards if shard.index not in missing]
    shards = [join(plan.folder.shards, shard_name(index)) for index in reversed(there)]
    return images_read([*([earlier.table] if earlier else []), *shards], config.allowed)


def _registry(bundle: Bundle, settings: ScorerSettings, read_before: dict[str, Image]) -> Any:
    # The files travel through the object store: verified once, here, and no node needs the bundle's storage.
    cae_files = {category: ray.put(bundle.autoencoder(category)) for category in bundle.categories}
    return (
        ray.remote(Registry)
        .options(num_cpus=0, max_concurrency=8, scheduling_strategy=on_this_node())
        .remote(settings, [ray.put(bundle.without_autoencoders())], cae_files, read_before)
    )
