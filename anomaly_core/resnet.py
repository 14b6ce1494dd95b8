"""ResNets for inference (He et al. 2016), built from torchvision's state dicts with every BatchNorm folded.

Training uses torchvision's own modules. Here nothing of torchvision is imported: that takes seconds in each process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from anomaly_core.convolution import Convolution, folded
from anomaly_core.forms import BackboneForm


@dataclass(frozen=True)
class Architecture:
    """blocks: residual blocks by stage; bottleneck: 1x1, 3x3, 1x1 convolutions in a block, else two of 3x3."""

    blocks: tuple[int, ...]
    bottleneck: bool

    @property
    def convolutions(self) -> int:
        """Convolutions in a block, without the one of its shortcut."""
        return 3 if self.bottleneck else 2

    def stride_in(self, form: BackboneForm) -> int:
        """Which convolution of a stage's first block has its stride."""
        return 2 if self.bottleneck and form == "v1.5" else 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the state dict, in torchvision's names, without the classifier."""
        found: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
        inputs = 64
        for stage, count in enumerate(self.blocks, 1):
            narrow = 64 * 2 ** (stage - 1)
            wide = 4 * narrow if self.bottleneck else narrow
            for block in range(count):
                name = f"layer{stage}.{block}"
                widths = (narrow, narrow, wide) if self.bottleneck else (narrow, narrow)
                previous = inputs
                for number, width in enumerate(widths, 1):
                    kernel = 1 if self.bottleneck and number != 2 else 3
                    found[f"{name}.conv{number}.weight"] = (width, previous, kernel, kernel)
                    found |= _norm(f"{name}.bn{number}", width)
                    previous = width
                if block == 0 and (stage > 1 or inputs != wide):
                    found[f"{name}.downsample.0.weight"] = (wide, inputs, 1, 1)
                    found |= _norm(f"{name}.downsample.1", wide)
                inputs = wide
        return found


RESNET18 = Architecture((2, 2, 2, 2), bottleneck=False)
RESNET50_TO_LAYER3 = Architecture((3, 4, 6), bottleneck=True)


def check_state(
    state: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], what: str, *, whole: bool = False
) -> None:
    """Raises ValueError naming the entries that are missing or have another shape; with whole, also unknown ones.

    Counters of norms may be there or not.
    """
    missing = sorted(name for name in shapes if name not in state)
    if missing:
        raise ValueError(f"not {what}: {len(missing)} entries missing, such as {missing[:3]}")
    differ = sorted(name for name, shape in shapes.items() if tuple(state[name].shape) != shape)
    if differ:
        raise ValueError(f"not {what}: other shapes at {differ[:3]}")
    unknown = sorted(name for name in state if name not in shapes and not name.endswith("num_batches_tracked"))
    if whole and unknown:
        raise ValueError(f"not {what}: unknown entries such as {unknown[:3]}")


class ResNet:
    """A ResNet on ``device`` in ``dtype``. state: as torchvision's, checked by the caller.

    v1.5 (torchvision) has the stride of a stage in its 3x3 convolution; v1 (He et al. 2015, Caffe) has it in the first
    1x1 convolution, and a stem max-pool without padding that rounds up.
    """

    def __init__(
        self,
        architecture: Architecture,
        state: Mapping[str, torch.Tensor],
        form: BackboneForm = "v1.5",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        if form not in ("v1.5", "v1"):
            raise ValueError(f"unknown form of ResNet-50 {form!r}: v1.5 or v1")
        self.form = form

        def convolution(name: str, norm: str, stride: int) -> Convolution:
            return Convolution(*folded(state, name, norm), stride, device, dtype)

        self.stem = convolution("conv1", "bn1", 2)
        self.stages: list[list[tuple[Convolution | None, list[Convolution]]]] = []
        strided = architecture.stride_in(form)
        for stage, count in enumerate(architecture.blocks, 1):
            blocks = []
            for block in range(count):
                name = f"layer{stage}.{block}"
                stride = 2 if stage > 1 and block == 0 else 1
                shortcut = None
                if f"{name}.downsample.0.weight" in state:
                    shortcut = convolution(f"{name}.downsample.0", f"{name}.downsample.1", stride)
                numbers = range(1, architecture.convolutions + 1)
                chain = [
                    convolution(f"{name}.conv{n}", f"{name}.bn{n}", stride if n == strided else 1) for n in numbers
                ]
                blocks.append((shortcut, chain))
            self.stages.append(blocks)

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Normalised images (N, 3, H, W), channels_last, to the output of each stage."""
        x = self.stem(images)
        x = F.max_pool2d(x, 3, 2, 0, ceil_mode=True) if self.form == "v1" else F.max_pool2d(x, 3, 2, 1)
        outputs = []
        for blocks in self.stages:
            for shortcut, (*first, last) in blocks:
                residual = x if shortcut is None else shortcut(x, relu=False)
                for convolution in first:
                    x = convolution(x)
                x = last(x, residual)
            outputs.append(x)
        return outputs


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
