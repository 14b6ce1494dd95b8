"""The ways of training and scoring that ``tests.bench.recipes`` compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from anomaly_core.cae import CAE
from anomaly_core.cae_training import Loss
from anomaly_core.forms import ScoreName
from anomaly_core.training import RECIPES, Recipe
from jobs.training.fits import SCORE


class Dropping(CAE):
    """A tenth of the latent numbers is dropped in training."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """As CAE."""
        return self.decoder(F.dropout(self.encoder(features), 0.1, self.training))


def with_cosine(reconstruction: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mean squared error and the mean of 1 - cosine over positions."""
    return F.mse_loss(reconstruction, features) + (1 - F.cosine_similarity(reconstruction, features, dim=1)).mean()


@dataclass(frozen=True)
class Way:
    """A recipe, and what no recipe of the product has: another model or loss in training, another score."""

    recipe: Recipe
    build: Callable[[], nn.Module] = CAE
    loss: Loss = F.mse_loss
    score: ScoreName = SCORE


_DEFAULT, _REFERENCE = RECIPES["default"], RECIPES["reference"]
_EIGHTH = replace(_DEFAULT, cae_positions=1 / 8)
_PLAIN = replace(_EIGHTH, cae_epochs=30, weighting="none")
_SHORT = replace(_EIGHTH, cae_epochs=30, cae_batch=8)
CANDIDATES: Mapping[str, Way] = {
    "reference": Way(_REFERENCE),
    "reference, weighted": Way(replace(_REFERENCE, weighting="residual", layer2_weight=3.0)),
    "an eighth of the positions": Way(replace(_REFERENCE, cae_positions=1 / 8)),
    "... rate falling, 30 epochs": Way(replace(_PLAIN, standardise=False, cae_batch=8)),
    "... batches of 4": Way(replace(_PLAIN, standardise=False)),
    "... standardised": Way(_PLAIN),
    "... weighted by residual": Way(replace(_EIGHTH, cae_epochs=30, layer2_weight=1.0)),
    "... layer2 twice": Way(replace(_EIGHTH, cae_epochs=30, layer2_weight=2.0)),
    "... three times": Way(replace(_EIGHTH, cae_epochs=30)),
    "... 60 epochs": Way(replace(_EIGHTH, cae_epochs=60)),
    "... a sixteenth, 60 epochs": Way(replace(_DEFAULT, cae_epochs=60)),
    "... batches of 2": Way(replace(_DEFAULT, cae_epochs=60, cae_batch=2)),
    "default": Way(_DEFAULT),
    "default, a thirty-second of the positions": Way(replace(_DEFAULT, cae_positions=1 / 32)),
    "default, layer2 six times": Way(replace(_DEFAULT, layer2_weight=6.0)),
    "default, not standardised": Way(replace(_DEFAULT, standardise=False)),
    "default, dropout": Way(_DEFAULT, build=Dropping),
    "default, cosine term": Way(_DEFAULT, loss=with_cosine),
    "default, top 10 of 28 x 28": Way(_DEFAULT, score="top10_mean_28"),
    "short": Way(_SHORT),
    "short, a quarter of the positions": Way(replace(_SHORT, cae_positions=0.25)),
    "short, 15 epochs": Way(replace(_SHORT, cae_epochs=15)),
    "principal, weighted": Way(replace(_DEFAULT, cae="principal")),
}
