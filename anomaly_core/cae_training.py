"""Fitting the autoencoder of one category, and weighing its channels, from frozen features of normal images."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from anomaly_core.cae import CAE, FoldedCAE
from anomaly_core.features import CHANNELS, LAYER2_CHANNELS, Layer, assemble, enlarge, pool
from anomaly_core.forms import GRID, Precision
from anomaly_core.principal import channel_moments, principal_cae
from anomaly_core.training import Best, Fitted, Progress, Recipe, autocast, batches

# No channel counts more than so many times as much as the median one: a channel that is silent on all normal images
# would otherwise decide every score by its rounding.
MOST_WEIGHT = 100.0

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fit_cae(
    layer2: Layer,
    layer3: Layer,
    recipe: Recipe,
    *,
    device: str,
    precision: Precision,
    seed: int = 0,
    progress: Progress | None = None,
    build: Callable[[], nn.Module] = CAE,
    loss: Loss = F.mse_loss,
) -> Fitted:
    """Fit the autoencoder of one category to normal images; the best epoch is kept.

    layer2 (N, 512, 28, 28), layer3 (N, 1024, 14, 14): frozen features of the normal training images, on the CPU, may
    be memory-mapped. Weights and optimiser are float32; with bfloat16 the products are taken in it (autocast). With
    ``recipe.cae`` principal it is set in closed form instead. build, loss: for studies of other ways; the model must
    have the state dict of a CAE, the loss takes reconstruction and features in float32.
    """
    start = time.monotonic()
    if recipe.cae == "principal":
        principal, left = principal_cae(layer2, layer3)
        return Fitted(principal.state_dict(), [left], 0, time.monotonic() - start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    model.to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.cae_rate, fused=True)
    generator = np.random.default_rng(seed)
    best, losses = Best(), []
    standard = _Standard(layer2, layer3, device) if recipe.standardise else None
    steps = recipe.cae_epochs * -(-len(layer2) // recipe.cae_batch)
    falling = recipe.cae_schedule == "cosine"
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps) if falling else None
    for epoch in range(recipe.cae_epochs):
        total = 0.0
        for rows in batches(len(layer2), recipe.cae_batch, generator):
            index = torch.from_numpy(rows)
            layers = layer2[index].to(device), layer3[index].to(device)
            some = recipe.cae_positions < 1
            features = _some_positions(*layers, recipe.cae_positions, generator) if some else assemble(*layers)
            if standard is not None:
                features = standard(features)
            features = features.contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad(set_to_none=True)
            with autocast(device, precision):
                reconstruction = model(features)
            missed = loss(reconstruction.float(), features.float())
            missed.backward()
            optimiser.step()
            if schedule is not None:
                schedule.step()
            total += float(missed.detach()) * len(rows)
        losses.append(total / len(layer2))
        best.offer(losses[-1], epoch, model, always=falling)
        if progress:
            progress(epoch + 1, recipe.cae_epochs)
    state = standard.folded(best.state) if standard is not None else best.state
    return Fitted(state, losses, best.epoch, time.monotonic() - start)


@torch.inference_mode()
def residual_weights(
    cae: FoldedCAE, layer2: Layer, layer3: Layer, layer2_weight: float = 1.0, micro_batch: int = 8
) -> torch.Tensor:
    """Weights of the channels: one over the mean squared error that is left in each, float32 (1536,), 1 on average.

    layer2 (N, 512, 28, 28), layer3 (N, 1024, 14, 14): of normal images that the autoencoder has not seen.
    layer2_weight: so many times as much for the channels of layer2.
    """
    left = torch.zeros(CHANNELS, dtype=torch.float64)
    for start in range(0, len(layer2), micro_batch):
        rows = slice(start, start + micro_batch)
        features = assemble(layer2[rows], layer3[rows])
        left += (features - cae(features)).float().square().sum(dim=(0, 2, 3)).double()
    weights = 1 / left.clamp(min=max(float(left.median()) / MOST_WEIGHT, torch.finfo(torch.float32).tiny))
    weights[:LAYER2_CHANNELS] *= layer2_weight
    return (weights / weights.mean()).float()


class _Standard:
    """Features with mean 0 and variance 1 in every channel over the positions of all images."""

    def __init__(self, layer2: Layer, layer3: Layer, device: str):
        mean, variance = channel_moments(layer2, layer3)
        deviation = variance.clamp(min=variance.mean() * 1e-6).sqrt()
        self.mean, self.deviation = (one.float().to(device)[:, None, None] for one in (mean, deviation))

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return (features.float() - self.mean) / self.deviation

    def folded(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights of the autoencoder that does the same on features as they are."""
        mean, deviation = self.mean.cpu().flatten(), self.deviation.cpu().flatten()
        first, last = state["encoder.0.weight"], state["decoder.6.weight"]
        narrow = first / deviation[None, :, None, None]
        return state | {
            "encoder.0.weight": narrow,
            "encoder.0.bias": state["encoder.0.bias"] - (narrow[:, :, 0, 0] @ mean),
            "decoder.6.weight": last * deviation[:, None, None, None],
            "decoder.6.bias": state["decoder.6.bias"] * deviation + mean,
        }


def _some_positions(
    layer2: torch.Tensor, layer3: torch.Tensor, share: float, generator: np.random.Generator
) -> torch.Tensor:
    """F at a share of its positions, the same ones of each image: (N, 1536, 1, P)."""
    count = GRID * GRID
    chosen = torch.from_numpy(np.sort(generator.permutation(count)[: max(1, round(share * count))])).to(layer2.device)
    parts = [layer.permute(0, 2, 3, 1).flatten(1, 2)[:, chosen] for layer in (pool(layer2), enlarge(pool(layer3)))]
    return torch.cat(parts, dim=2).permute(0, 2, 1)[:, :, None]
