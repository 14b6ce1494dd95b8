"""The two kinds of Ray task: fit the router over all categories, fit the autoencoder of one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.bundle import save_pth
from anomaly_core.bundle_manifest import (
    ROUTER_FEATURES_FILE,
    ROUTER_FILE,
    CategoryInfo,
    RouterInfo,
    cae_file,
    features_file,
    sha256,
    weights_file,
)
from anomaly_core.cae import load_cae
from anomaly_core.cae_training import fit_cae, residual_weights
from anomaly_core.calibration import ThresholdRule
from anomaly_core.device import DTYPES
from anomaly_core.features import LAYER2_CHANNELS, LAYER3_CHANNELS, Chosen, load_backbone
from anomaly_core.forms import GRID, BackboneForm, Precision, ScoreName
from anomaly_core.known import pooled
from anomaly_core.preprocess import Preprocessing, normalise
from anomaly_core.router import load_router
from anomaly_core.scoring import CategoryScorer
from anomaly_core.training import Fitted, Progress, Recipe, extract_layers, fit_router, parted, split
from jobs.storage import read_bytes, scratch, write_bytes
from jobs.training.images import TrainingImages, decode_images
from jobs.uris import join

SCORE: ScoreName = "top10_mean_224"
# Images of a category whose pooled features are kept.
MOST = 1000


@dataclass(frozen=True)
class TaskSettings:
    """What every task needs. inputs: digest of all that goes into its model besides the images."""

    output: str
    recipe: Recipe
    device: str
    precision: Precision
    seed: int
    inputs: str
    preprocessing: Preprocessing


def fit_category(
    images: TrainingImages,
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    threads: int,
    board: Any,
) -> CategoryInfo:
    """Decode, extract once, fit, calibrate; write ``cae_<category>.pth`` and the record that makes it resumable."""
    start = time.monotonic()
    torch.set_num_threads(threads)
    say = _reporter(board, images.category)
    say("decoding")(0, len(images.uris))
    with scratch() as local:
        pixels, digest = decode_images(images.uris, local / "pixels", settings.preprocessing)
        layer2, layer3 = _layers(len(pixels), settings.precision, local)
        model = load_backbone(backbone, form, settings.device, DTYPES[settings.precision])
        placing = {"device": settings.device, "precision": settings.precision}
        extract_layers(pixels, model, layer2, layer3, progress=say("features"), **placing)  # type: ignore[arg-type]
        fitted, weights, scores = fit_and_calibrate(layer2, layer3, settings, say)
        features = _features(layer2, layer3, settings.seed)
    threshold = ThresholdRule.parse(settings.recipe.threshold_rule)(scores)
    info = CategoryInfo(
        images=len(images.uris),
        images_sha256=digest,
        losses=fitted.losses,
        best_epoch=fitted.best_epoch,
        seconds=round(time.monotonic() - start, 3),
        threshold=threshold.value,
        calibration_scores=sorted(float(s) for s in scores),
        folds=settings.recipe.folds_of(len(images.uris)),
        promised_false_rejects=threshold.promised_false_rejects,
    )
    files = {
        cae_file(images.category): save_pth(fitted.state),
        features_file(images.category): save_pth({"backbone": features}),
    }
    if weights is not None:
        files[weights_file(images.category)] = save_pth({"weights": weights})
    _save(settings, images.category, images.identity, files, info.model_dump())
    return info


def fit_and_calibrate(
    layer2: torch.Tensor, layer3: torch.Tensor, settings: TaskSettings, say: Callable[[str], Progress]
) -> tuple[Fitted, torch.Tensor | None, npt.NDArray[np.float64]]:
    """The autoencoder that is kept, the weights of its channels if the recipe has any, and the scores of normal images
    that its threshold is set from, float64 (N,).

    The images that are scored are in parts, and those of one part are weighed by what is left in the others.
    """
    count, recipe = len(layer2), settings.recipe
    placing = {"device": settings.device, "precision": settings.precision, "seed": settings.seed}
    dtype = DTYPES[settings.precision]

    def fit(rows: npt.NDArray[np.int64], stage: str) -> Fitted:
        return fit_cae(Chosen(layer2, rows), Chosen(layer3, rows), recipe, progress=say(stage), **placing)  # type: ignore[arg-type]

    def weigh(fitted: Fitted, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        cae = load_cae(fitted.state, "cpu", dtype)
        return residual_weights(cae, Chosen(layer2, rows), Chosen(layer3, rows), recipe.layer2_weight)

    def score(fitted: Fitted, rows: npt.NDArray[np.int64], weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        cae = load_cae(fitted.state, settings.device, dtype, weights)
        scorer = CategoryScorer(cae, SCORE, settings.device, dtype)
        some = torch.from_numpy(rows).split(32)
        return np.concatenate([scorer(layer2[few], layer3[few]).score for few in some]).astype(np.float64)

    if folds := recipe.folds_of(count):
        apart = parted(count, folds, settings.seed)
        parts = [
            (fit(np.setdiff1d(np.arange(count), unseen), f"fold {number + 1} of {folds}"), unseen)
            for number, unseen in enumerate(apart)
        ]
        kept = fit(np.arange(count), "autoencoder")
    else:
        rows, unseen = split(count, recipe.held_out, settings.seed)
        kept = fit(rows, "autoencoder")
        parts = [(kept, unseen[half]) for half in parted(len(unseen), 2, settings.seed)]
    weights, others = None, [None] * len(parts)
    if recipe.weighting == "residual":
        own = torch.stack([weigh(*part) for part in parts])
        weights, others = own.mean(dim=0), [(own.sum(dim=0) - one) / (len(own) - 1) for one in own]
    scores = [score(fitted, unseen, other) for (fitted, unseen), other in zip(parts, others, strict=True)]
    order = np.concatenate([unseen for _, unseen in parts])
    return kept, weights, np.concatenate(scores)[np.argsort(order)]


def _features(layer2: torch.Tensor, layer3: torch.Tensor, seed: int) -> torch.Tensor:
    """Pooled features of the images, of MOST at random if there are more, float32 (n, 1536)."""
    parts = torch.arange(len(layer2)).split(32)
    return some(torch.cat([pooled(layer2[part], layer3[part]) for part in parts]), seed)


def some(features: torch.Tensor, seed: int) -> torch.Tensor:
    """MOST of them at random; of whatever features of the same images, the same ones."""
    return features[torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(features))[:MOST]))].clone()


def fit_all(
    images: Sequence[TrainingImages],
    initial: Mapping[str, torch.Tensor],
    source: str,
    settings: TaskSettings,
    threads: int,
    board: Any,
) -> RouterInfo:
    """Fit the router over all categories; write ``best_classifier.pth`` and its record."""
    torch.set_num_threads(threads)
    say = _reporter(board, "router")
    uris = [uri for one in images for uri in one.uris]
    say("decoding")(0, len(uris))
    labels: npt.NDArray[np.int64] = np.repeat(np.arange(len(images)), [len(one.uris) for one in images])
    with scratch() as local:
        pixels, _ = decode_images(uris, local / "pixels", settings.preprocessing)
        fitted, frozen, accuracy = fit_router(
            pixels,
            labels,
            len(images),
            initial,
            settings.recipe,
            device=settings.device,
            precision=settings.precision,
            seed=settings.seed,
            progress=say("router"),
        )
        features = router_features(pixels, fitted.state, settings)
    info = RouterInfo(
        source=source,
        frozen_norms=frozen,
        losses=fitted.losses,
        training_accuracy=accuracy,
        seconds=round(fitted.seconds, 3),
    )
    by_category = {one.category: some(features[labels == i], settings.seed) for i, one in enumerate(images)}
    files = {
        ROUTER_FEATURES_FILE: save_pth(by_category),
        ROUTER_FILE: save_pth({"model_state_dict": fitted.state}),
    }
    _save(settings, "router", router_identity(images), files, info.model_dump())
    return info


@torch.inference_mode()
def router_features(
    pixels: npt.NDArray[np.uint8], state: Mapping[str, torch.Tensor], settings: TaskSettings
) -> torch.Tensor:
    """What the last layer of a router sees of images, float32 (N, 512)."""
    router = load_router(state, settings.device, DTYPES[settings.precision])
    found = []
    for start in range(0, len(pixels), 32):
        images = normalise(torch.tensor(pixels[start : start + 32], device=settings.device), router.weight.dtype)
        found.append(router.features(images).float().cpu())
    return torch.cat(found)


def router_identity(images: Sequence[TrainingImages]) -> str:
    """Digest of the images of all categories."""
    return sha256("\n".join(one.identity for one in images).encode())


def finished(settings: TaskSettings, task: str, identity: str) -> dict[str, Any] | None:
    """The training figures of a task that was done before with the same images and settings, whose files are all there
    as it wrote them; or None."""
    try:
        record = json.loads(read_bytes(_record(settings.output, task)))
        if record["inputs"] != settings.inputs or record["images"] != identity:
            return None
        if any(sha256(read_bytes(join(settings.output, name))) != digest for name, digest in record["files"].items()):
            return None
    except (FileNotFoundError, ValueError, KeyError):
        return None
    info: dict[str, Any] = record["info"]
    return info


def _save(settings: TaskSettings, task: str, identity: str, files: Mapping[str, bytes], info: dict[str, Any]) -> None:
    """Write the files of a task, then the record that says that they are all there."""
    for name, data in files.items():
        write_bytes(join(settings.output, name), data)
    digests = {name: sha256(data) for name, data in files.items()}
    record = {"inputs": settings.inputs, "images": identity, "files": digests, "info": info}
    write_bytes(_record(settings.output, task), json.dumps(record, indent=1).encode())


def _record(output: str, task: str) -> str:
    return join(output, "training", f"{task}.json")


def _layers(count: int, precision: Precision, local: Path) -> tuple[torch.Tensor, torch.Tensor]:
    # Features of a category can be larger than memory: files that are mapped let the system keep what fits.
    def mapped(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        size = int(np.prod(shape))
        flat = torch.from_file(str(local / name), shared=True, size=size, dtype=DTYPES[precision])
        return flat.view(*shape).permute(0, 3, 1, 2)  # channels last: they are put together in less than half the time

    layer2 = mapped("layer2", (count, GRID, GRID, LAYER2_CHANNELS))
    layer3 = mapped("layer3", (count, GRID // 2, GRID // 2, LAYER3_CHANNELS))
    return layer2, layer3


def _reporter(board: Any, task: str) -> Callable[[str], Callable[[int, int], None]]:
    def stage(name: str) -> Callable[[int, int], None]:
        # Not waited for: a task that waits gives its CPUs back, and Ray would start another beside it.
        return lambda done, total: board.write.remote(task, name, done, total)

    return stage
