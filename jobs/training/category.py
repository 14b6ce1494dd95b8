"""The Ray tasks of one category: fit its autoencoders, and set its threshold from what they have not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from anomaly_core.bundle import load_pth, save_pth
from anomaly_core.bundle_manifest import CategoryInfo, cae_file, features_file, weights_file
from anomaly_core.calibration import ThresholdRule
from anomaly_core.forms import BackboneForm
from anomaly_core.known import pooled
from anomaly_core.training import Fitted
from jobs.training.config import TrainingError
from jobs.training.extraction import extracted
from jobs.training.fits import calibrate, fit_on, fit_rows, fits_of
from jobs.training.images import TrainingImages, content
from jobs.training.tasks import TaskRecord, TaskSettings, files_of, reporter, save, some


def fit_task(images: TrainingImages, number: int) -> str:
    """The name of the task that fits one of several autoencoders of a category."""
    return f"{images.category}/{number}"


def fit_one(
    images: TrainingImages,
    number: int,
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    threads: int,
    board: Any,
) -> TaskRecord:
    """Fit one of several autoencoders of a category, for ``fit_category``; write it, and the record that makes it
    resumable.

    It decodes its images and extracts their features itself, so that it can run on any node. With the default recipe on
    a CPU that is about 2 % of the time of the fit.
    """
    start = time.monotonic()
    torch.set_num_threads(threads)
    fits = fits_of(len(images.uris), settings.recipe, settings.seed)
    task, epochs = fit_task(images, number), settings.recipe.cae_epochs

    def tell(done: int, _: int) -> None:
        board.fit.remote(images.category, number, len(fits), epochs, done)

    tell(0, epochs)
    uris = [images.uris[row] for row in fits[number].rows]
    with extracted(uris, backbone, form, settings) as found:
        fitted = fit_on(found.layer2, found.layer3, settings, tell)
    tell(epochs, epochs)
    figures = {
        "losses": fitted.losses,
        "best_epoch": fitted.best_epoch,
        "seconds": round(time.monotonic() - start, 3),
    }
    files = {f"training/{task}.pth": save_pth(fitted.state)}
    return save(settings, task, images.identity, content(found.digests), files, figures)


def fit_category(
    images: TrainingImages,
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    threads: int,
    board: Any,
    *before: TaskRecord,
) -> CategoryInfo:
    """Fit the autoencoder of a category and set its threshold; write ``cae_<category>.pth`` and the record that makes
    it resumable. before: of its autoencoders, if it needs several: all were fitted by ``fit_one``.

    Raises TrainingError if an image or an autoencoder is not what it was when they were fitted.
    """
    start = time.monotonic()
    torch.set_num_threads(threads)
    say = reporter(board, images.category)
    say("calibration" if before else "decoding")(0, len(images.uris))
    fits = fits_of(len(images.uris), settings.recipe, settings.seed)
    with extracted(images.uris, backbone, form, settings, say("calibration" if before else "features")) as found:
        for fit, record in zip(fits, before, strict=False):
            if content(found.digests[row] for row in fit.rows) != record.content:
                raise TrainingError(
                    f"{images.category}: its images were changed while it was trained; give the command again"
                )
        if before:
            fitted = [_fitted(settings, record) for record in before]
        else:
            fitted = [fit_rows(found.layer2, found.layer3, fit, settings, say) for fit in fits]
        weights, scores = calibrate(found.layer2, found.layer3, fits, fitted, settings)
        features = _features(found.layer2, found.layer3, settings.seed)
    kept, digest = fitted[-1], content(found.digests)
    threshold = ThresholdRule.parse(settings.recipe.threshold_rule)(scores)
    info = CategoryInfo(
        images=len(images.uris),
        images_sha256=digest,
        losses=kept.losses,
        best_epoch=kept.best_epoch,
        seconds=round(time.monotonic() - start + sum(one.info["seconds"] for one in before), 3),
        threshold=threshold.value,
        calibration_scores=sorted(float(s) for s in scores),
        folds=settings.recipe.folds_of(len(images.uris)),
        promised_false_rejects=threshold.promised_false_rejects,
    )
    files = {
        cae_file(images.category): save_pth(kept.state),
        features_file(images.category): save_pth({"backbone": features}),
    }
    if weights is not None:
        files[weights_file(images.category)] = save_pth({"weights": weights})
    save(settings, images.category, images.identity, digest, files, info.model_dump())
    return info


def _fitted(settings: TaskSettings, record: TaskRecord) -> Fitted:
    """An autoencoder that ``fit_one`` has left."""
    files = files_of(settings, record)
    (name,) = files
    return Fitted(load_pth(files, name), **record.info)  # type: ignore[arg-type]


def _features(layer2: torch.Tensor, layer3: torch.Tensor, seed: int) -> torch.Tensor:
    """Pooled features of the images, of MOST at random if there are more, float32 (n, 1536)."""
    parts = torch.arange(len(layer2)).split(32)
    return some(torch.cat([pooled(layer2[part], layer3[part]) for part in parts]), seed)
