"""The autoencoder set in closed form: the principal components of the features, written as the weights of a CAE.

For small training sets, where gradient descent has too few steps to converge. The best linear reconstruction through
100 numbers is known without descent; a linear map passes the ReLUs as its positive and its negative part. The result
is an ordinary CAE in the ordinary file format.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from anomaly_core.cae import CAE, LATENT
from anomaly_core.features import CHANNELS, Layer, assemble


def principal_cae(layer2: Layer, layer3: Layer, micro_batch: int = 8) -> tuple[CAE, float]:
    """The CAE whose reconstruction is the projection on the first 100 principal components of the positions of F.

    layer2 (N, 512, 28, 28), layer3 (N, 1024, 14, 14): features of normal images. Returns the model in eval mode and
    the mean squared error it leaves on them. Raises ValueError if there are fewer positions than components.
    """
    mean, covariance = _moments(layer2, layer3, micro_batch)
    values, vectors = torch.linalg.eigh(covariance)
    components = vectors[:, -LATENT:].T.flip(0).float()  # (100, 1536), largest variance first
    left = float(values[:-LATENT].clamp(min=0).sum()) / CHANNELS
    return _write(components, mean.float()), left


def channel_moments(layer2: Layer, layer3: Layer, micro_batch: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel over the positions of all images, float64 (1536,) each. Layers as above."""
    count = 0
    total, squares = torch.zeros(2, CHANNELS, dtype=torch.float64)
    for found in _positions(layer2, layer3, micro_batch):
        count += len(found)
        total += found.sum(dim=0, dtype=torch.float64)
        squares += found.double().square().sum(dim=0)
    mean = total / count
    return mean, squares / count - mean.square()


def _moments(layer2: Layer, layer3: Layer, micro_batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    count = 0
    total = torch.zeros(CHANNELS, dtype=torch.float64)
    products = torch.zeros(CHANNELS, CHANNELS, dtype=torch.float64)
    shift: torch.Tensor | None = None  # near the mean, so that large means do not cancel in float32
    for found in _positions(layer2, layer3, micro_batch):
        shift = found.mean(dim=0) if shift is None else shift
        positions = found - shift
        count += len(positions)
        total += positions.sum(dim=0, dtype=torch.float64)
        products += (positions.T @ positions).double()
    if count <= LATENT:
        raise ValueError(f"{count} positions are too few for {LATENT} components")
    assert shift is not None
    mean = total / count
    return mean + shift.double(), products / count - torch.outer(mean, mean)


def _positions(layer2: Layer, layer3: Layer, micro_batch: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(layer2), micro_batch):
        rows = slice(start, start + micro_batch)
        yield assemble(layer2[rows].float(), layer3[rows].float()).permute(0, 2, 3, 1).reshape(-1, CHANNELS)


@torch.no_grad()
def _write(components: torch.Tensor, mean: torch.Tensor) -> CAE:
    model = CAE().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            assert module.bias is not None
            module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(1 - module.eps)  # so that the norm is the identity
    both = torch.cat([components, -components])
    signs = torch.cat([torch.eye(LATENT), -torch.eye(LATENT)])
    first, second, latent = (_conv(model.encoder, i) for i in (0, 3, 6))
    third, fourth, last = (_conv(model.decoder, i) for i in (0, 3, 6))
    first.weight[: 2 * LATENT, :, 0, 0] = both
    assert first.bias is not None
    first.bias[: 2 * LATENT] = -both @ mean
    second.weight[:, : 2 * LATENT, 0, 0] = torch.eye(2 * LATENT)
    latent.weight[:, :, 0, 0] = signs.T
    third.weight[:, :, 0, 0] = signs
    fourth.weight[: 2 * LATENT, :, 0, 0] = torch.eye(2 * LATENT)
    last.weight[:, : 2 * LATENT, 0, 0] = both.T
    assert last.bias is not None
    last.bias.copy_(mean)
    return model


def _conv(layers: nn.Sequential, index: int) -> nn.Conv2d:
    layer = layers[index]
    assert isinstance(layer, nn.Conv2d)
    return layer
