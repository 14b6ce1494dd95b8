"""Whether an image shows a product that the bundle knows: its distance from the training images of a category.

The features of an image, averaged over its positions, are compared with the mean of each category's training images by
Mahalanobis distance with one covariance for all categories (Lee et al. 2018). The confidence of the router cannot tell:
it has to choose one of its categories, and is as sure of a product that it has never seen.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.calibration import conformal
from anomaly_core.features import CHANNELS

# Fewer images than channels: the covariance is drawn towards its diagonal, and no channel counts as nearly constant.
SHRINKAGE, RIDGE = 0.1, 0.01
FOLDS = 5
# Of good parts, the share that may be called unknown, as far as the number of images can promise it.
FALSE_UNKNOWN = 0.001
# A bundle of one category has nothing to compare with: so many times as far as its own images lie.
ALONE = 3.0
# Images of a category: fewer say too little of how far apart they lie.
LEAST = 30


def pooled(layer2: torch.Tensor, layer3: torch.Tensor) -> torch.Tensor:
    """layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14) to their means over positions, float32 (N, 1536)."""
    return torch.cat([layer.float().mean((2, 3)) for layer in (layer2, layer3)], dim=1)


@dataclass(frozen=True)
class Known:
    """whitening: (1536, 1536), into a space where distance is Mahalanobis distance; centres (C, 1536): the categories
    there; limits (C,): distance above which an image does not show a category's product. All float32."""

    whitening: torch.Tensor
    centres: torch.Tensor
    limits: torch.Tensor

    def __call__(self, features: torch.Tensor) -> npt.NDArray[np.float32]:
        """Pooled features (N, 1536) to float32 (N, C): distance from each category as a multiple of its limit."""
        distances = torch.cdist(features @ self.whitening, self.centres, compute_mode="donot_use_mm_for_euclid_dist")
        found: npt.NDArray[np.float32] = (distances / self.limits).numpy()
        return found

    def to_bytes(self) -> bytes:
        """As a .pth file."""
        buffer = io.BytesIO()
        torch.save({"whitening": self.whitening, "centres": self.centres, "limits": self.limits}, buffer)
        return buffer.getvalue()


def load_known(state: object, categories: int) -> Known:
    """From the content of the file. Raises ValueError saying what does not fit."""
    wanted = {"whitening": (CHANNELS, CHANNELS), "centres": (categories, CHANNELS), "limits": (categories,)}
    if not isinstance(state, dict) or set(state) != set(wanted):
        raise ValueError(f"not a dict of {', '.join(wanted)}")
    for name, shape in wanted.items():
        value = state[name]
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape or value.dtype != torch.float32:
            raise ValueError(f"{name} is not float32 of shape {shape}")
        if not value.isfinite().all():
            raise ValueError(f"{name} is not finite")
    if not (state["limits"] > 0).all():
        raise ValueError("a limit is not above 0")
    return Known(**state)


def fit_known(features: Sequence[torch.Tensor], seed: int = 0) -> Known:
    """From the pooled features of each category's training images, float32 (n, 1536) with n of 2 and more.

    A limit lies halfway between the category's own images (the distance that conformal calibration gives, each image
    measured by statistics without it) and the nearest image of another category.
    """
    parts = [one.double() for one in features]
    means, inverse = _statistics(parts)
    own = [_own_limit(distances) for distances in _out_of_fold(parts, seed)]
    limits = []
    for index, mean in enumerate(means):
        others = [float(_distances(part, mean, inverse).min()) for i, part in enumerate(parts) if i != index]
        limit = (own[index] + min(others)) / 2 if others else ALONE * own[index]
        limits.append(max(own[index], limit))
    whitening = torch.linalg.cholesky(inverse)
    return Known(whitening.float(), (torch.stack(means) @ whitening).float(), torch.tensor(limits, dtype=torch.float32))


def _own_limit(distances: npt.NDArray[np.float64]) -> float:
    return conformal(distances, FALSE_UNKNOWN).value


def _out_of_fold(parts: Sequence[torch.Tensor], seed: int) -> list[npt.NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    folds = [np.array_split(generator.permutation(len(part)), min(FOLDS, len(part))) for part in parts]
    found = [np.empty(len(part)) for part in parts]
    for number in range(FOLDS):
        unseen = [fold[number] if number < len(fold) else np.array([], dtype=np.int64) for fold in folds]
        seen = [part[np.setdiff1d(np.arange(len(part)), rows)] for part, rows in zip(parts, unseen, strict=True)]
        means, inverse = _statistics(seen)
        for part, rows, mean, distances in zip(parts, unseen, means, found, strict=True):
            distances[rows] = _distances(part[rows], mean, inverse).numpy()
    return found


def _statistics(parts: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The mean of each, and the inverse of the covariance around them, shrunk."""
    means = [part.mean(dim=0) for part in parts]
    around = torch.cat([part - mean for part, mean in zip(parts, means, strict=True)])
    covariance = around.T @ around / len(around)
    diagonal = covariance.diagonal().clone()
    floor = RIDGE * diagonal.mean() + torch.finfo(torch.float32).tiny
    shrunk = (1 - SHRINKAGE) * covariance + torch.diag(SHRINKAGE * diagonal + floor)
    return means, torch.linalg.inv(shrunk)


def _distances(features: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    around = features - mean
    return ((around @ inverse) * around).sum(dim=1).sqrt()
