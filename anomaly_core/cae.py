"""The convolutional autoencoder (CAE) of one category: 1x1 convolutions only, 3.05 M parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from anomaly_core.convolution import folded
from anomaly_core.features import CHANNELS, LAYER2_CHANNELS, enlarge, pool
from anomaly_core.forms import GRID
from anomaly_core.resnet import check_state

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


class FoldedCAE:
    """The CAE for inference, on rows: 1x1 convolutions are matrix products over the positions of the feature map.

    layers: weight (out, in) and bias (out,) of each convolution, its norm folded in. weights (1536,): of the channels
    in the error map, 1 on average; None for all the same, as in the reference.
    """

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]], weights: torch.Tensor | None = None):
        self.layers = layers
        roots = None if weights is None else weights.sqrt().to(layers[0][0])
        self.roots = (None, None) if roots is None else (roots[:LAYER2_CHANNELS], roots[LAYER2_CHANNELS:])
        (weight, self.first_bias), *self.hidden, (last, last_bias) = layers
        self.first2 = weight[:, :LAYER2_CHANNELS].t().contiguous()
        self.first3 = weight[:, LAYER2_CHANNELS:].contiguous()
        # The bias of the last convolution as the weight of a unit that is always 1: see ``errors``.
        weight, bias = self.hidden[-1]
        self.hidden[-1] = (F.pad(weight, (0, 0, 0, 1)), F.pad(bias, (0, 1), value=1.0))
        negative = -torch.cat([last, last_bias[:, None]], dim=1)
        self.minus2, self.minus3 = negative[:LAYER2_CHANNELS].contiguous(), negative[LAYER2_CHANNELS:].contiguous()

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Feature map F (N, 1536, 28, 28) to its reconstruction R of the same shape."""
        *hidden, last = self.layers
        return F.linear(_through(features.permute(0, 2, 3, 1), hidden), *last).permute(0, 3, 1, 2)

    def errors(self, layer2: torch.Tensor, layer3: torch.Tensor) -> torch.Tensor:
        """layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14) to E = mean over channels of w (F - R)^2, (N, 28, 28).

        F is never put together, and R never rounded. The first convolution runs on layer3 at 14 x 14, which is exact:
        without padding left, a 1x1 convolution commutes with the resize. The last one is a product that starts from F
        and subtracts. E is float32.
        """
        pooled2, pooled3 = pool(layer2), pool(layer3)
        rows2, rows3 = _rows(pooled2), _rows(enlarge(pooled3))
        part3 = F.linear(_rows(pooled3), self.first3, self.first_bias)
        part3 = enlarge(part3.view(len(layer3), *layer3.shape[2:], -1).permute(0, 3, 1, 2))
        x = _through(torch.addmm(_rows(part3), rows2, self.first2).relu_(), self.hidden)
        squares = []
        for rows, minus, root in zip((rows2, rows3), (self.minus2, self.minus3), self.roots, strict=True):
            residual = torch.addmm(rows, x, minus.t())
            if root is not None:
                residual *= root
            squares.append(torch.linalg.vector_norm(residual, dim=1, dtype=torch.float32).square_())
        return ((squares[0] + squares[1]) / CHANNELS).view(len(layer2), GRID, GRID)


def load_cae(
    state: Mapping[str, torch.Tensor],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    weights: torch.Tensor | None = None,
) -> FoldedCAE:
    """The CAE for inference. weights: of the channels, see FoldedCAE. Raises ValueError naming the keys if the state
    dict does not fit, and for weights that are not 1536 positive float32."""
    if weights is not None and (
        weights.shape != (CHANNELS,) or weights.dtype != torch.float32 or not (weights > 0).all()
    ):
        raise ValueError(f"channel weights must be {CHANNELS} positive float32")
    with torch.device("meta"):  # names and shapes only
        wanted = {k: tuple(v.shape) for k, v in CAE().state_dict().items() if not k.endswith("num_batches_tracked")}
    check_state(state, wanted, "an autoencoder", whole=True)
    layers = []
    for part in ("encoder", "decoder"):
        for index in (0, 3, 6):
            norm = f"{part}.{index + 1}" if index < 6 else None
            weight, bias = folded(state, f"{part}.{index}", norm)
            layers.append((weight[:, :, 0, 0].to(device, dtype).contiguous(), bias.to(device, dtype)))
    return FoldedCAE(layers, None if weights is None else weights.to(device))


def _through(x: torch.Tensor, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Rows through hidden layers: a ReLU after each but the latent one."""
    for weight, bias in layers:
        x = F.linear(x, weight, bias)
        if weight.shape[0] != LATENT:
            x.relu_()
    return x


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W), channels_last, to (N * H * W, C), without a copy."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _hidden(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
