"""The router: a ResNet-18 fine-tuned to tell the product categories apart (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from anomaly_core.resnet import RESNET18, ResNet, check_state

ARCHITECTURE = "resnet18"
NORM_IDENTITY_TOLERANCE = 1e-4
EXTENSION_STEPS, EXTENSION_DECAY = 200, 1e-3
# What the last layer sees of a badly broken part looks less like its category, and like no other one. Fitted on whole
# parts alone, a new category won where the evidence for the others was weak: 6 of 63 broken bottles became screws.
EVIDENCE = (1.0, 0.75, 0.5, 0.25)


def router_state(checkpoint: object) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint: either the file itself, or its entry ``model_state_dict``.

    Raises ValueError if there is none.
    """
    state = checkpoint
    if isinstance(checkpoint, Mapping) and "model_state_dict" in checkpoint:
        state = checkpoint["model_state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ValueError("neither a state dict nor a dict with one under 'model_state_dict'")
    return dict(state)


def number_of_classes(state: Mapping[str, torch.Tensor]) -> int:
    """Outputs of the last layer. Raises ValueError if the state dict has no ``fc.weight``."""
    if "fc.weight" not in state or state["fc.weight"].ndim != 2:
        raise ValueError("no matrix 'fc.weight': not a fine-tuned ResNet-18")
    return int(state["fc.weight"].shape[0])


def build_router(classes: int) -> nn.Module:
    """A ResNet-18 with freshly initialised weights and ``classes`` outputs, in train mode."""
    from torchvision.models import resnet18  # here, because it takes seconds to import

    model = resnet18(weights=None)
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model


class Router:
    """The router for inference."""

    def __init__(self, resnet: ResNet, weight: torch.Tensor, bias: torch.Tensor):
        self.resnet, self.weight, self.bias = resnet, weight, bias

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, 3, 224, 224) to logits (N, classes)."""
        return F.linear(self.features(images), self.weight, self.bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images to what the last layer sees (N, 512)."""
        return self.resnet(images)[-1].mean((2, 3))


def load_router(state: Mapping[str, torch.Tensor], device: str = "cpu", dtype: torch.dtype = torch.float32) -> Router:
    """The router for inference: BatchNorm folded, channels_last, on ``device`` in ``dtype``.

    Raises ValueError naming the keys if the state dict does not fit.
    """
    classes = number_of_classes(state)
    shapes = {**RESNET18.shapes(), "fc.weight": (classes, 512), "fc.bias": (classes,)}
    check_state(state, shapes, "a fine-tuned ResNet-18", whole=True)
    resnet = ResNet(RESNET18, state, "v1.5", device, dtype)
    return Router(resnet, state["fc.weight"].to(device, dtype), state["fc.bias"].to(device, dtype))


def pretrained_router(classes: int, state: Mapping[str, torch.Tensor]) -> tuple[nn.Module, Sequence[nn.Module]]:
    """A ResNet-18 to be fine-tuned from ImageNet weights, and the norms that must stay in eval mode meanwhile.

    Weights may lack convolutions (they start afresh, each with a fresh norm). Norms that are identity plus bias, as
    left behind by folding, are kept in eval mode: batch statistics would undo the fold.

    Raises ValueError naming the keys if anything but ``fc`` and whole convolutions is missing, or a shape differs.
    """
    model = build_router(classes)
    own = model.state_dict()
    usable = {k: v for k, v in state.items() if not k.startswith("fc.")}
    unknown = sorted(set(usable) - set(own))
    shapes = sorted(k for k in usable if k in own and usable[k].shape != own[k].shape)
    missing = sorted(k for k in own if k not in usable and not k.startswith("fc."))
    fresh = {k.removesuffix(".weight") for k in missing if "conv" in k and k.endswith(".weight")}
    norms_missing = [k for k in missing if k.removesuffix(".weight") not in fresh and "num_batches" not in k]
    if unknown or shapes or norms_missing:
        raise ValueError(
            f"not ResNet-18 weights: unknown {unknown[:3]}, shapes {shapes[:3]}, missing {norms_missing[:3]}"
        )
    restarted = {name.replace("conv", "bn") for name in fresh}
    kept = {k: v for k, v in usable.items() if k.rsplit(".", 1)[0] not in restarted}
    model.load_state_dict(kept, strict=False)
    frozen = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and name not in restarted and _is_identity(module)
    ]
    return model, frozen


def extended(
    state: Mapping[str, torch.Tensor], place: int, known: torch.Tensor, new: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The state dict of a router that tells one category more, whose other outputs are what they were.

    place: where the new class stands among the others. known (n, 512), new (m, 512): what the last layer sees of
    training images of the categories so far, and of the new one, float32. Only the new row of the last layer is fitted,
    by cross-entropy with a little weight decay, both sides weighing the same; each image is seen with its features as
    they are and with weaker ones.
    """
    weight, bias = state["fc.weight"].float(), state["fc.bias"].float()
    known, new = (torch.cat([share * features for share in EVIDENCE]) for features in (known, new))
    before, offered = F.linear(known, weight, bias), F.linear(new, weight, bias)
    row = torch.zeros(weight.shape[1], requires_grad=True)
    shift = torch.zeros((), requires_grad=True)
    # Of the others only their sum of exponentials matters, and that does not change.
    rest_known, rest_new = before.logsumexp(dim=1), offered.logsumexp(dim=1)
    scale = torch.cat([known, new]).std().clamp(min=1e-6)
    optimiser = torch.optim.LBFGS([row, shift], max_iter=EXTENSION_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logit_known, logit_new = known @ row / scale + shift, new @ row / scale + shift
        kept = F.softplus(logit_known - rest_known).mean()
        taken = F.softplus(rest_new - logit_new).mean()
        total = kept + taken + EXTENSION_DECAY * row.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    fitted_row, fitted_shift = (row / scale).detach(), shift.detach()
    wider = dict(state)
    for name, value, one in (("fc.weight", weight, fitted_row[None]), ("fc.bias", bias, fitted_shift[None])):
        wider[name] = torch.cat([value[:place], one, value[place:]]).contiguous()
    return wider


def route(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, classes) to the class index int64 (N,) and its softmax probability float32 (N,)."""
    confidence, index = torch.softmax(logits.float(), dim=1).max(dim=1)
    return index, confidence


def _is_identity(norm: nn.BatchNorm2d) -> bool:
    assert norm.running_mean is not None and norm.running_var is not None
    deviation = max(
        float((norm.weight.detach() - 1).abs().max()),
        float(norm.running_mean.abs().max()),
        float((norm.running_var - 1).abs().max()),
    )
    return deviation < NORM_IDENTITY_TOLERANCE and bool(norm.bias.detach().abs().max() > 0)
