"""The convolutional autoencoder (CAE) of one category: 1x1 convolutions only, 3.05 M parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from anomaly_core.features import CHANNELS
from anomaly_core.folding import fold_batch_norm

LATENT = 100


class CAE(nn.Module):
    """C -> (C + 2d)/2 -> 2d -> d and back. BatchNorm and ReLU after hidden convolutions only.

    Keys of the state dict are the reference's: ``encoder.0`` to ``encoder.6``, ``decoder.0`` to ``decoder.6``.
    """

    def __init__(self, channels: int = CHANNELS, latent: int = LATENT):
        super().__init__()
        wide, narrow = (channels + 2 * latent) // 2, 2 * latent
        self.encoder = nn.Sequential(*_hidden(channels, wide), *_hidden(wide, narrow), nn.Conv2d(narrow, latent, 1))
        self.decoder = nn.Sequential(*_hidden(latent, narrow), *_hidden(narrow, wide), nn.Conv2d(wide, channels, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Feature map F (N, 1536, 28, 28) to its reconstruction R of the same shape."""
        return self.decoder(self.encoder(features))


def load_cae(state: Mapping[str, torch.Tensor], device: str = "cpu", dtype: torch.dtype = torch.float32) -> CAE:
    """The CAE for inference: eval mode, BatchNorm folded, channels_last, frozen.

    Raises RuntimeError (from torch) naming the keys if the state dict does not fit.
    """
    with torch.device("meta"):  # no random weights that the next line replaces
        model = CAE()
    model.load_state_dict(dict(state), strict=True, assign=True)
    fold_batch_norm(model.eval()).requires_grad_(False)
    return model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)


def _hidden(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
