"""Training from end to end: images -> frozen features -> autoencoders and router -> thresholds -> bundle."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
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
    BundleError,
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
from jobs.listing import names
from jobs.storage import delete, prune, read_bytes, scratch, write_bytes
from jobs.training.board import Board
from jobs.training.config import TrainingConfig, TrainingError
from jobs.training.fits import SCORE
from jobs.training.images import TrainingImages, decode_images, find_images
from jobs.training.router import router_identity
from jobs.training.schedule import run_tasks
from jobs.training.tasks import TaskRecord, TaskSettings, finished, has_record
from jobs.uris import join
from jobs.weights import RANDOM, BackboneWeights, backbone_weights, random_seed, router_weights

SETTLING_IMAGES = 32
# Of each category, for the self-test of audits.
REFERENCE_IMAGES = 2


def train(config: TrainingConfig, watch: Callable[[Board], None] = lambda board: None) -> BundleManifest:
    """Train a bundle and write it; bundle.json comes last, and only then is there a bundle.

    A training that was killed does again, when the same command is given, only what was not finished: an autoencoder, a
    category, the router. watch is called about twice a second with how far every task is.

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
        inputs=_inputs(config, device, precision, backbone, initial),
        preprocessing=config.preprocessing,
    )
    board: Board = {}
    infos = categories_before(settings, images, board)
    done = look(settings, "router", router_identity(images), [uri for one in images for uri in one.uris], board)
    router = RouterInfo.model_validate(done.info) if done is not None else None
    watch(board)
    todo = [one for one in images if one.category not in infos]
    if not todo and router is not None:
        there = _as_it_is(config.output, [one.category for one in images], infos, router)
        if there is not None:
            return there
    delete(join(config.output, BUNDLE_FILE))  # until the new bundle is whole there must be none that looks whole
    if todo or router is None:
        with ray_session():
            everything = images if router is None else None
            fitted = run_tasks(todo, everything, backbone, initial, router_source, settings, watch, board)
        router = fitted.pop("router", router)  # type: ignore[assignment]
        infos.update(fitted)  # type: ignore[arg-type]
    assert router is not None
    clear(config.output, images)
    return _write_bundle(config, settings, backbone, router, images, infos)


def look(settings: TaskSettings, task: str, identity: str, uris: Sequence[str], board: Board) -> TaskRecord | None:
    """What ``finished`` says of a task; the board is told of it, and also if it was done with something else."""
    done = finished(settings, task, identity, uris)
    if done is not None:
        board[task] = ("finished before", 1, 1)
    elif has_record(settings, task):
        board[task] = ("begins anew: images or settings are not those of before", 0, 1)
    return done


def categories_before(
    settings: TaskSettings, images: Sequence[TrainingImages], board: Board
) -> dict[str, CategoryInfo]:
    """The figures of the categories that are finished, of which the board is told."""
    looked = {one.category: look(settings, one.category, one.identity, one.uris, board) for one in images}
    return {category: CategoryInfo.model_validate(done.info) for category, done in looked.items() if done is not None}


def clear(output: str, images: Sequence[TrainingImages]) -> None:
    """Remove what the fits of finished categories have left, those of trainings that were killed too."""
    for one in images:
        folder = join(output, "training", one.category)
        for name in names(folder):
            delete(join(folder, name))
        prune(folder, 1)


def begin(output: str, asked: str) -> None:
    """Write down what is asked of a training: an output that cannot be written must end it before its hours of work."""
    try:
        write_bytes(join(output, TRAINING_FILE), asked.encode())
    except OSError as error:
        raise TrainingError(f"--output {output} cannot be written ({error}); give another folder") from error


def _as_it_is(
    output: str, categories: list[str], infos: dict[str, CategoryInfo], router: RouterInfo
) -> BundleManifest | None:
    """The bundle that is there, if it is what was trained and nothing of it is missing or changed: it keeps its digest,
    by which runs know it."""
    try:
        manifest = BundleManifest.from_bytes(read_bytes(join(output, BUNDLE_FILE)))
        if (manifest.categories, manifest.training, manifest.router) != (categories, infos, router):
            return None
        if any(sha256(read_bytes(join(output, name))) != digest for name, digest in manifest.files.items()):
            return None
    except (FileNotFoundError, BundleError):
        return None
    return manifest


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


def _inputs(
    config: TrainingConfig, device: str, precision: str, backbone: BackboneWeights, initial: dict[str, torch.Tensor]
) -> str:
    content = {
        "made_by": created_by(),  # what one version has begun is not mixed with what another one makes
        "recipe": asdict(config.steps),
        "device": device,
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
