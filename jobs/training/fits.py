"""What a category needs: autoencoders, and the scores of what they have not seen, for its threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.cae import load_cae
from anomaly_core.cae_training import fit_cae, residual_weights
from anomaly_core.device import DTYPES
from anomaly_core.features import Chosen, Layer
from anomaly_core.forms import ScoreName
from anomaly_core.scoring import CategoryScorer
from anomaly_core.training import Fitted, Progress, Recipe, parted, split
from jobs.training.tasks import TaskSettings

SCORE: ScoreName = "top10_mean_224"


@dataclass(frozen=True)
class Fit:
    """One autoencoder of a category. stage: what it is to people. rows: the images that it sees; unseen: those that are
    calibrated with it, in parts of which each is weighed by the others; indices, ascending."""

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


def fit_rows(
    layer2: torch.Tensor, layer3: torch.Tensor, fit: Fit, settings: TaskSettings, say: Callable[[str], Progress]
) -> Fitted:
    """One of a category's autoencoders, from the features of all its images."""
    return fit_on(Chosen(layer2, fit.rows), Chosen(layer3, fit.rows), settings, say(fit.stage))


def fit_on(layer2: Layer, layer3: Layer, settings: TaskSettings, say: Progress) -> Fitted:
    """An autoencoder fitted to all images whose features are given."""
    device, precision, seed = settings.device, settings.precision, settings.seed
    return fit_cae(layer2, layer3, settings.recipe, device=device, precision=precision, seed=seed, progress=say)


def fit_and_calibrate(
    layer2: torch.Tensor, layer3: torch.Tensor, settings: TaskSettings, say: Callable[[str], Progress]
) -> tuple[Fitted, torch.Tensor | None, npt.NDArray[np.float64]]:
    """The autoencoder that is kept, fitted here as all others that are needed, and what ``calibrate`` finds."""
    fits = fits_of(len(layer2), settings.recipe, settings.seed)
    fitted = [fit_rows(layer2, layer3, fit, settings, say) for fit in fits]
    return fitted[-1], *calibrate(layer2, layer3, fits, fitted, settings)


def calibrate(
    layer2: torch.Tensor, layer3: torch.Tensor, fits: Sequence[Fit], fitted: Sequence[Fitted], settings: TaskSettings
) -> tuple[torch.Tensor | None, npt.NDArray[np.float64]]:
    """The weights of a category's channels, float32 (1536,), if the recipe has any, and the scores of normal images
    that its threshold is set from, float64 (N,), in the order of the images.

    The images that are scored are in parts, and those of one part are weighed by what is left in the others.
    """
    recipe, dtype = settings.recipe, DTYPES[settings.precision]
    parts = [(one, unseen) for one, fit in zip(fitted, fits, strict=True) for unseen in fit.unseen]

    def weigh(one: Fitted, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        cae = load_cae(one.state, "cpu", dtype)
        return residual_weights(cae, Chosen(layer2, rows), Chosen(layer3, rows), recipe.layer2_weight)

    def score(one: Fitted, rows: npt.NDArray[np.int64], weights: torch.Tensor | None) -> npt.NDArray[np.float64]:
        cae = load_cae(one.state, settings.device, dtype, weights)
        scorer = CategoryScorer(cae, SCORE, settings.device, dtype)
        few = torch.from_numpy(rows).split(32)
        return np.concatenate([scorer(layer2[part], layer3[part]).score for part in few]).astype(np.float64)

    weights, others = None, [None] * len(parts)
    if recipe.weighting == "residual":
        own = torch.stack([weigh(*part) for part in parts])
        weights, others = own.mean(dim=0), [(own.sum(dim=0) - one) / (len(own) - 1) for one in own]
    scores = [score(one, unseen, other) for (one, unseen), other in zip(parts, others, strict=True)]
    order = np.concatenate([unseen for _, unseen in parts])
    return weights, np.concatenate(scores)[np.argsort(order)]
