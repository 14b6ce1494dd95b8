"""Frozen ResNet-50 features: layer2 and layer3, pooled, brought to one grid and concatenated.

Two forms of ResNet-50 are in use and their weights are not interchangeable. v1.5 (torchvision) has the stride of a
stage in its 3x3 convolution. v1 (He et al. 2015, Caffe) has it in the first 1x1 convolution, and a stem max-pool
without padding that rounds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from anomaly_core.folding import fold_batch_norm

BackboneForm = Literal["v1.5", "v1"]
LAYER2_CHANNELS, LAYER3_CHANNELS = 512, 1024
CHANNELS = LAYER2_CHANNELS + LAYER3_CHANNELS
GRID = 28


class Backbone(nn.Module):
    """ResNet-50 up to layer3. Nothing above is needed, so nothing above is there. Keys are torchvision's."""

    def __init__(self, form: BackboneForm = "v1.5"):
        # Here, because torchvision takes seconds to import, and a process that only scores does without.
        from torchvision.models import resnet50

        super().__init__()
        full = resnet50(weights=None)
        self.conv1, self.bn1, self.relu = full.conv1, full.bn1, full.relu
        self.maxpool: nn.Module = full.maxpool
        self.layer1, self.layer2, self.layer3 = full.layer1, full.layer2, full.layer3
        self.form = form
        if form == "v1":
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
            for stage in (self.layer2, self.layer3):
                block: Any = stage[0]
                block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
        elif form != "v1.5":
            raise ValueError(f"unknown form of ResNet-50 {form!r}: v1.5 or v1")

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (N, 3, 224, 224) to layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer2 = self.layer2(self.layer1(x))
        return layer2, self.layer3(layer2)


def backbone_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a ResNet-50 state dict that Backbone uses, in float32.

    Raises ValueError naming the keys that are missing or have another shape.
    """
    with torch.device("meta"):  # names and shapes only
        wanted = Backbone().state_dict()
    missing = sorted(k for k in wanted if k not in state and not k.endswith("num_batches_tracked"))
    if missing:
        raise ValueError(f"not ResNet-50 weights up to layer3: {len(missing)} entries missing, such as {missing[:3]}")
    shapes = sorted(k for k in wanted if k in state and state[k].shape != wanted[k].shape)
    if shapes:
        raise ValueError(f"not ResNet-50 weights: other shapes at {shapes[:3]}")
    return {
        k: (state[k].detach().float() if state[k].is_floating_point() else state[k]).clone().contiguous()
        for k in wanted
        if k in state
    }


def load_backbone(
    state: Mapping[str, torch.Tensor],
    form: BackboneForm,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """The backbone for inference: eval mode, BatchNorm folded, channels_last, frozen."""
    with torch.device("meta"):  # no random weights that the next line replaces
        model = Backbone(form)
    model.load_state_dict(backbone_state(state), strict=False, assign=True)
    fold_batch_norm(model.eval()).requires_grad_(False)
    return model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)


def assemble(layer2: torch.Tensor, layer3: torch.Tensor) -> torch.Tensor:
    """layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14) to the feature map F (N, 1536, 28, 28).

    Each through a 3x3 average pool whose padding counts as zeros, then layer3 bilinearly to layer2's grid.
    """
    pooled2 = F.avg_pool2d(layer2, kernel_size=3, stride=1, padding=1)
    pooled3 = F.avg_pool2d(layer3, kernel_size=3, stride=1, padding=1)
    upsampled = F.interpolate(pooled3, size=layer2.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([pooled2, upsampled], dim=1)


def random_backbone_state(images: torch.Tensor, seed: int = 0, branch: float = 0.1) -> dict[str, torch.Tensor]:
    """Seeded random ResNet-50 v1.5 weights whose norms are settled on ``images``, normalised (N, 3, 224, 224).

    For machines that cannot have ImageNet weights. One pass in train mode gives each norm the statistics of its real
    input; with the initial ones (mean 0, variance 1) activations grow with every residual block. ``branch`` scales the
    residual branches: what many random layers make of a picture is chaotic, what the short paths make of it is local.
    (Drawn parts, four categories, principal components: mean image AUROC .62 at 1, .86 at 0.3, .92 at 0.1, .90 at 0.)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Backbone("v1.5").train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # cumulative average: after one pass, exactly that pass
        last = getattr(module, "bn3", None)  # of a residual block: the norm at the end of its branch
        if isinstance(last, nn.BatchNorm2d):
            nn.init.constant_(last.weight, branch)
    with torch.no_grad():
        model(images.float())
    return backbone_state(model.state_dict())
