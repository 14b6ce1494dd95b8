"""The Ray tasks that fit the autoencoder of one category, and those that score its calibration images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.bundle import load_pth, save_pth
from anomaly_core.bundle_manifest import CategoryInfo, cae_file, features_file, weights_file
from anomaly_core.cae import load_cae
from anomaly_core.cae_training import fit_cae, residual_weights
from anomaly_core.calibration import ThresholdRule
from anomaly_core.device import DTYPES
from anomaly_core.features import LAYER2_CHANNELS, LAYER3_CHANNELS, Chosen, load_backbone
from anomaly_core.forms import GRID, BackboneForm, Precision, ScoreName
from anomaly_core.known import pooled
from anomaly_core.scoring import CategoryScorer
from anomaly_core.training import Fitted, Progress, Recipe, extract_layers, parted, split
from jobs.storage import delete, prune, read_bytes, scratch
from jobs.training.images import TrainingImages, decode_images
from jobs.training.tasks import TaskSettings, finished, record_of, reporter, save, some
from jobs.uris import join

SCORE: ScoreName = "top10_mean_224"
Layers = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Fit:
    """One autoencoder of a category. stage: what it is to people. rows: the images that it sees; unseen: those that it
    helps to calibrate on, in as many parts as are weighed apart; indices, ascending."""

    stage: str
    rows: npt.NDArray[np.int64]
    unseen: Sequence[npt.NDArray[np.int64]]


def fits_of(count: int, recipe: Recipe, seed: int) -> list[Fit]:
    """The autoencoders that a category of so many images needs; the last one is kept."""
    if folds := recipe.folds_of(count):
        everything = np.arange(count)
        apart = enumerate(parted(count, folds, seed), start=1)
        fits = [Fit(f"fold {k} of {folds}", np.setdiff1d(everything, unseen), [unseen]) for k, unseen in apart]
        return [*fits, Fit("autoencoder", everything, [])]
    rows, unseen = split(count, recipe.held_out, seed)
    return [Fit("autoencoder", rows, [unseen[half] for half in parted(len(unseen), 2, seed)])]


def fit_fold(
    images: TrainingImages,
    number: int,
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    threads: int,
    board: Any,
) -> None:
    """Fit one of the autoencoders of a category alone, and leave it for ``fit_category``.

    It decodes its images and extracts their features itself, which takes about a hundredth of the time of the fit, so
    that it can run on any node.
    """
    torch.set_num_threads(threads)
    fits = fits_of(len(images.uris), settings.recipe, settings.seed)

    def tell(done: int, total: int) -> None:
        board.part.remote(images.category, number, len(fits), done, total)

    tell(0, 1)
    uris = [images.uris[row] for row in fits[number].rows]
    with extracted(uris, backbone, form, settings) as (layers, _):
        fitted = _fit(*layers, settings, tell)
    task = fit_task(images, number)
    figures = {"losses": fitted.losses, "best_epoch": fitted.best_epoch, "seconds": fitted.seconds}
    save(settings, task, images.identity, {_fit_file(task): save_pth(fitted.state)}, figures)


def fit_task(images: TrainingImages, number: int) -> str:
    """The name of the task that fits one of the autoencoders of a category."""
    return f"{images.category}/{number}"


def fit_category(
    images: TrainingImages,
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    threads: int,
    board: Any,
    *after: None,
) -> CategoryInfo:
    """Fit what autoencoders are not there, calibrate; write ``cae_<category>.pth`` and the record that makes it
    resumable. after: the tasks of those that are fitted alone."""
    start = time.monotonic()
    torch.set_num_threads(threads)
    say = reporter(board, images.category)
    say("decoding")(0, len(images.uris))
    there = _left(images, settings)
    with extracted(images.uris, backbone, form, settings, say("features")) as (layers, digest):
        fitted, weights, scores = fit_and_calibrate(*layers, settings, say, there)
        features = _features(*layers, settings.seed)
    threshold = ThresholdRule.parse(settings.recipe.threshold_rule)(scores)
    info = CategoryInfo(
        images=len(images.uris),
        images_sha256=digest,
        losses=fitted.losses,
        best_epoch=fitted.best_epoch,
        seconds=round(time.monotonic() - start + sum(one.seconds for one in there.values()), 3),
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
    save(settings, images.category, images.identity, files, info.model_dump())
    for number in there:
        task = fit_task(images, number)
        delete(record_of(settings.output, task))
        delete(join(settings.output, _fit_file(task)))
    prune(join(settings.output, "training", images.category), 1)
    return info


def fit_and_calibrate(
    layer2: torch.Tensor,
    layer3: torch.Tensor,
    settings: TaskSettings,
    say: Callable[[str], Progress],
    there: Mapping[int, Fitted] | None = None,
) -> tuple[Fitted, torch.Tensor | None, npt.NDArray[np.float64]]:
    """The autoencoder that is kept, the weights of its channels if the recipe has any, and the scores of normal images
    that its threshold is set from, float64 (N,). there: autoencoders that were fitted before, by their place.

    The images that are scored are in parts, and those of one part are weighed by what is left in the others.
    """
    recipe, dtype = settings.recipe, DTYPES[settings.precision]

    def fit(number: int, one: Fit) -> Fitted:
        if there and number in there:
            return there[number]
        return _fit(Chosen(layer2, one.rows), Chosen(layer3, one.rows), settings, say(one.stage))

    def weigh(fitted: Fitted, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        cae = load_cae(fitted.state, "cpu", dtype)
        return residual_weights(cae, Chosen(layer2, rows), Chosen(layer3, rows), recipe.layer2_weight)

    def score(fitted: Fitted, rows: npt.NDArray[np.int64], weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        cae = load_cae(fitted.state, settings.device, dtype, weights)
        scorer = CategoryScorer(cae, SCORE, settings.device, dtype)
        few = torch.from_numpy(rows).split(32)
        return np.concatenate([scorer(layer2[part], layer3[part]).score for part in few]).astype(np.float64)

    fits = fits_of(len(layer2), recipe, settings.seed)
    fitted = [fit(number, one) for number, one in enumerate(fits)]
    parts = [(one, unseen) for one, of in zip(fitted, fits, strict=True) for unseen in of.unseen]
    weights, others = None, [None] * len(parts)
    if recipe.weighting == "residual":
        own = torch.stack([weigh(*part) for part in parts])
        weights, others = own.mean(dim=0), [(own.sum(dim=0) - one) / (len(own) - 1) for one in own]
    scores = [score(one, unseen, other) for (one, unseen), other in zip(parts, others, strict=True)]
    order = np.concatenate([unseen for _, unseen in parts])
    return fitted[-1], weights, np.concatenate(scores)[np.argsort(order)]


@contextmanager
def extracted(
    uris: Sequence[str],
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    progress: Progress | None = None,
) -> Iterator[tuple[Layers, str]]:
    """Layers 2 and 3 of images, mapped from files that last as long as the context; SHA-256 over the images' bytes."""
    placing = {"device": settings.device, "precision": settings.precision}
    with scratch() as local:
        pixels, digest = decode_images(uris, local / "pixels", settings.preprocessing)
        layers = _layers(len(pixels), settings.precision, local)
        model = load_backbone(backbone, form, settings.device, DTYPES[settings.precision])
        extract_layers(pixels, model, *layers, progress=progress, **placing)  # type: ignore[arg-type]
        yield layers, digest


def _fit(layer2: torch.Tensor | Chosen, layer3: torch.Tensor | Chosen, settings: TaskSettings, say: Progress) -> Fitted:
    placing = {"device": settings.device, "precision": settings.precision, "seed": settings.seed}
    return fit_cae(layer2, layer3, settings.recipe, progress=say, **placing)  # type: ignore[arg-type]


def _left(images: TrainingImages, settings: TaskSettings) -> dict[int, Fitted]:
    """Autoencoders that ``fit_fold`` has left, by their place."""
    there = {}
    for number in range(len(fits_of(len(images.uris), settings.recipe, settings.seed))):
        task = fit_task(images, number)
        if figures := finished(settings, task, images.identity):
            data = read_bytes(join(settings.output, _fit_file(task)))
            there[number] = Fitted(load_pth({task: data}, task), **figures)  # type: ignore[arg-type]
    return there


def _fit_file(task: str) -> str:
    return f"training/{task}.pth"


def _features(layer2: torch.Tensor, layer3: torch.Tensor, seed: int) -> torch.Tensor:
    """Pooled features of the images, of MOST at random if there are more, float32 (n, 1536)."""
    parts = torch.arange(len(layer2)).split(32)
    return some(torch.cat([pooled(layer2[part], layer3[part]) for part in parts]), seed)


def _layers(count: int, precision: Precision, local: Path) -> Layers:
    # Features of a category can be larger than memory: files that are mapped let the system keep what fits.
    def mapped(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        size = int(np.prod(shape))
        flat = torch.from_file(str(local / name), shared=True, size=size, dtype=DTYPES[precision])
        return flat.view(*shape).permute(0, 3, 1, 2)  # channels last: they are put together in less than half the time

    layer2 = mapped("layer2", (count, GRID, GRID, LAYER2_CHANNELS))
    layer3 = mapped("layer3", (count, GRID // 2, GRID // 2, LAYER3_CHANNELS))
    return layer2, layer3
