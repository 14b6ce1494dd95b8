"""Training from end to end: images -> frozen features -> autoencoders and router -> thresholds -> bundle."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import ray
import torch

from anomaly_core.bundle import load_pth, save_pth
from anomaly_core.bundle_manifest import (
    BACKBONE_FILE,
    BUNDLE_FILE,
    KNOWN_FILE,
    ROUTER_FEATURES_FILE,
    ROUTER_FILE,
    THRESHOLDS_FILE,
    TRAINING_FILE,
    BackboneInfo,
    BundleManifest,
    CategoryInfo,
    PreprocessingInfo,
    RouterInfo,
    cae_file,
    features_file,
    sha256,
    weights_file,
)
from anomaly_core.device import resolve_device, resolve_precision
from anomaly_core.features import random_backbone_state
from anomaly_core.known import LEAST, fit_known
from anomaly_core.preprocess import normalise
from anomaly_core.self_test import with_references
from jobs.cluster_session import ray_session
from jobs.storage import delete, read_bytes, scratch, write_bytes
from jobs.training.board import Board, ProgressBoard
from jobs.training.category import SCORE, fit_category, fit_fold, fit_task, fits_of
from jobs.training.config import TrainingConfig, TrainingError
from jobs.training.images import TrainingImages, decode_images, find_images
from jobs.training.router import fit_all, router_identity
from jobs.training.tasks import TaskSettings, finished
from jobs.uris import join
from jobs.weights import RANDOM, BackboneWeights, backbone_weights, random_seed, router_weights

MOST_THREADS = 4
SETTLING_IMAGES = 32
# Of each category, for the self-test of audits.
REFERENCE_IMAGES = 2
POLL_SECONDS = 0.5


def train(config: TrainingConfig, watch: Callable[[Board], None] = lambda board: None) -> BundleManifest:
    """Train a bundle and write it; bundle.json comes last, and only then is there a bundle.

    A training that was killed goes on where it was when the same command is given again: what is finished (a category,
    one of its folds, the router) is not done again. watch is called about twice a second with how far every task is.

    Raises TrainingError, WeightsError, ValueError, StorageAccessError.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    images = find_images(config.images, config.categories)
    begin(config.output, config.model_dump_json(indent=1))
    backbone = _backbone(config, images)
    initial, router_source = router_weights(config.router_weights)
    settings = TaskSettings(
        output=config.output,
        recipe=config.steps,
        device=device,
        precision=precision,
        seed=config.seed,
        inputs=_inputs(config, precision, backbone, initial),
        preprocessing=config.preprocessing,
    )
    delete(join(config.output, BUNDLE_FILE))  # until the new bundle is whole there must be none that looks whole
    infos: dict[str, CategoryInfo] = {}
    board: Board = {}
    for one in images:
        done = finished(settings, one.category, one.identity)
        if done is not None:
            infos[one.category] = CategoryInfo.model_validate(done)
            board[one.category] = ("finished before", 1, 1)
    done = finished(settings, "router", router_identity(images))
    router = RouterInfo.model_validate(done) if done is not None else None
    if router is not None:
        board["router"] = ("finished before", 1, 1)
    watch(board)
    todo = [one for one in images if one.category not in infos]
    if todo or router is None:
        with ray_session():
            everything = images if router is None else None
            fitted = run_tasks(todo, everything, backbone, initial, router_source, settings, watch, board)
        router = fitted.pop("router", router)  # type: ignore[assignment]
        infos.update(fitted)  # type: ignore[arg-type]
    assert router is not None
    return _write_bundle(config, settings, backbone, router, images, infos)


def begin(output: str, asked: str) -> None:
    """Write down what is asked of a training: an output that cannot be written must end it before its hours of work."""
    try:
        write_bytes(join(output, TRAINING_FILE), asked.encode())
    except OSError as error:
        raise TrainingError(f"--output {output} cannot be written ({error}); give another folder") from error


def run_tasks(
    todo: list[TrainingImages],
    all_images: list[TrainingImages] | None,
    backbone: BackboneWeights,
    initial: dict[str, torch.Tensor],
    router_source: str,
    settings: TaskSettings,
    watch: Callable[[Board], None],
    board: Board,
) -> dict[str, CategoryInfo | RouterInfo]:
    """The Ray tasks of a training: one for the router over all images, if they are given, and one for each category
    that is to do, before it one for each of its autoencoders if it has several. initial, router_source: of the router;
    board: of what is done.

    They run side by side with few threads each: the steps are small, and two fits with a thread each take two thirds of
    the time of one after the other with two. The router and the largest categories come first.
    """
    progress = ray.remote(ProgressBoard).options(num_cpus=0).remote()
    cpus = int(ray.cluster_resources().get("CPU", 1))

    def start(work: Callable[..., Any], threads: int, *arguments: Any, after: Sequence[Any] = ()) -> ray.ObjectRef[Any]:
        gpus = 1 if settings.device == "cuda" else 0
        options: dict[str, Any] = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 1}
        return ray.remote(work).options(**options).remote(*arguments, settings, threads, progress, *after)

    tasks: dict[ray.ObjectRef[Any], str] = {}
    if all_images is not None:
        tasks[start(fit_all, min(cpus, MOST_THREADS), all_images, initial, router_source)] = "router"
    state = ray.put(backbone.state)
    counts = {one.category: len(fits_of(len(one.uris), settings.recipe, settings.seed)) for one in todo}
    threads = min(max(1, cpus // max(1, sum(counts.values()))), MOST_THREADS)
    for one in sorted(todo, key=lambda one: -len(one.uris)):
        numbers = range(counts[one.category]) if counts[one.category] > 1 else ()
        left = [number for number in numbers if finished(settings, fit_task(one, number), one.identity) is None]
        folds = [start(fit_fold, threads, one, number, state, backbone.form) for number in left]
        tasks[start(fit_category, threads, one, state, backbone.form, after=folds)] = one.category
    results: dict[str, CategoryInfo | RouterInfo] = {}
    waiting = list(tasks)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_SECONDS)
        for reference in ready:
            results[tasks[reference]] = ray.get(reference)
        lines: Board = ray.get(progress.read.remote())
        watch({**board, **lines, **dict.fromkeys(results, ("finished", 1, 1))})
    return results


def _backbone(config: TrainingConfig, images: list[TrainingImages]) -> BackboneWeights:
    name = config.backbone_weights
    if name is None or not name.startswith(RANDOM):
        return backbone_weights(name, config.backbone_form)
    each = max(2, SETTLING_IMAGES // len(images))
    uris = [uri for one in images for uri in one.uris[:each]]
    with scratch() as local:
        pixels, _ = decode_images(uris, local / "pixels", config.preprocessing)
        state = random_backbone_state(normalise(torch.tensor(np.asarray(pixels))), random_seed(name))
    return BackboneWeights(state, "v1.5", f"{name}, norms settled on {len(uris)} training images")


def _inputs(config: TrainingConfig, precision: str, backbone: BackboneWeights, initial: dict[str, torch.Tensor]) -> str:
    content = {
        "recipe": asdict(config.steps),
        "precision": precision,
        "seed": config.seed,
        "preprocessing": asdict(config.preprocessing),
        "form": backbone.form,
        "backbone": _digest(backbone.state),
        "router": _digest(initial),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_bundle(
    config: TrainingConfig,
    settings: TaskSettings,
    backbone: BackboneWeights,
    router: RouterInfo,
    images: Sequence[TrainingImages],
    infos: dict[str, CategoryInfo],
) -> BundleManifest:
    infos = {one.category: infos[one.category] for one in images}  # in class order
    thresholds = {category: info.threshold for category, info in infos.items()}
    if any(not 0 < value < float("inf") for value in thresholds.values()):
        raise TrainingError(f"training gave no usable threshold: {thresholds}; look at the losses in training/")
    own = {
        BACKBONE_FILE: save_pth(backbone.state),
        THRESHOLDS_FILE: (json.dumps(thresholds, indent=2) + "\n").encode(),
    }
    trained = [ROUTER_FILE, ROUTER_FEATURES_FILE, *map(cae_file, infos), *map(features_file, infos)]
    if config.steps.weighting != "none":
        trained += map(weights_file, infos)
    files = own | {name: read_bytes(join(config.output, name)) for name in trained}
    files |= known_file(files, list(infos), config.seed)
    digests = {name: sha256(data) for name, data in files.items()}
    manifest = BundleManifest(
        created_by=created_by(),
        created_at=created_now(),
        categories=list(infos),
        backbone=BackboneInfo(form=backbone.form, source=backbone.source, sha256=digests[BACKBONE_FILE]),
        preprocessing=PreprocessingInfo(**asdict(config.preprocessing)),
        router=router,
        score=SCORE,
        precision=settings.precision,
        recipe=asdict(config.steps) | {"seed": config.seed},
        threshold_rule=config.steps.threshold_rule,
        calibrated_on="training_images" if config.steps.calibrates_on_training_images else "held_out_images",
        training=infos,
        files=digests,
    )
    references = {one.category: [read_bytes(uri) for uri in references_of(one.uris)] for one in images}
    whole = with_references({**files, BUNDLE_FILE: manifest.to_bytes()}, references, settings.device)
    for name in sorted(whole.keys() - {*trained, BUNDLE_FILE}):
        write_bytes(join(config.output, name), whole[name])
    write_bytes(join(config.output, BUNDLE_FILE), whole[BUNDLE_FILE])
    return BundleManifest.from_bytes(whole[BUNDLE_FILE])


def known_file(files: Mapping[str, bytes], categories: Sequence[str], seed: int) -> dict[str, bytes]:
    """The file that tells unknown products, by its name, from the features of all categories; nothing if a category has
    too few."""
    features = [load_pth(files, features_file(category))["backbone"] for category in categories]  # type: ignore[index]
    return {KNOWN_FILE: fit_known(features, seed).to_bytes()} if min(map(len, features)) >= LEAST else {}


def created_by() -> str:
    """Which program makes a bundle."""
    return f"line-audit {version('line-audit')}, torch {torch.__version__}"


def created_now() -> str:
    """When, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def references_of(uris: Sequence[str]) -> Sequence[str]:
    """Those of a category's images that audits test the bundle with."""
    # Not the first ones, which often are pictures of one part.
    return uris[:: max(1, len(uris) // REFERENCE_IMAGES)][:REFERENCE_IMAGES]


def elapsed(start: float) -> str:
    """Seconds since ``start`` (time.monotonic), for people."""
    return f"{time.monotonic() - start:.1f} s"
