"""A convolution for inference: BatchNorm folded into it, the residual sum and the ReLU taken in the same pass.

On CPUs it calls oneDNN's fused convolution, as compiled models of torch do, with the weight in the layout that oneDNN
wants: what follows a convolution in a ResNet costs as much as the convolution if it is a pass of its own. (Two cores
with AMX, bfloat16, ResNet-50 to layer3: 8.4 ms an image instead of 15.2 on one core; torch.compile reaches the same
after 20 s of compiling in each process.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from anomaly_core.device import MICRO_BATCH

EPSILON = 1e-5  # of torchvision's BatchNorm


class Convolution:
    """Convolution, optional residual, optional ReLU; accumulated in float32 and rounded once.

    weight: float32 (out, in, k, k); bias: float32 (out,). Padding keeps the grid but for the stride.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        padding = weight.shape[-1] // 2
        # padding, stride, dilation and groups, as oneDNN's calls take them
        self.geometry = ([padding] * 2, [stride] * 2, [1, 1], 1)
        self.weight = weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self.bias = bias.to(device, dtype)
        self.fused = device == "cpu" and fused_convolution_available(dtype)

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None, relu: bool = True) -> torch.Tensor:
        """x: (N, in, H, W), channels_last. residual: added before the ReLU, of the shape of the result."""
        if not self.fused:
            return self._plain(x, residual, relu)
        weight = self.weight
        if not weight.is_mkldnn:
            # Which layout oneDNN wants depends on the input: without its size it guesses, and lays out every weight
            # anew in every call where it guessed wrong (bfloat16 without AMX: 40 % of the time).
            size = [MICRO_BATCH["cpu"], *x.shape[1:]]
            weight = self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, size)
        fused = torch.ops.mkldnn._convolution_pointwise
        if residual is None:
            return fused(x, weight, self.bias, *self.geometry, "relu" if relu else "none", [], "")
        after = "relu" if relu else None
        return fused.binary(x, residual, weight, self.bias, *self.geometry, "add", 1.0, after, [], None)

    def _plain(self, x: torch.Tensor, residual: torch.Tensor | None, relu: bool) -> torch.Tensor:
        padding, stride, _, _ = self.geometry
        y = F.conv2d(x, self.weight, self.bias, stride=stride, padding=padding)
        if residual is not None:
            y += residual
        return y.relu_() if relu else y


def fused_convolution_available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this build of torch has oneDNN's fused convolution, and this CPU the instructions for it.

    In bfloat16 oneDNN refuses CPUs without AVX512, where torch's own convolution is slow but right.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def folded(state: Mapping[str, torch.Tensor], convolution: str, norm: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, float32, of a convolution and the BatchNorm after it in eval mode, if there is one, as one."""
    weight = state[f"{convolution}.weight"].double()
    bias = state[f"{convolution}.bias"].double() if f"{convolution}.bias" in state else weight.new_zeros(len(weight))
    if norm is not None:
        scale = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + EPSILON).sqrt()
        weight = weight * scale[:, None, None, None]
        bias = state[f"{norm}.bias"].double() + (bias - state[f"{norm}.running_mean"].double()) * scale
    return weight.float(), bias.float()
