"""ImageNet weights by name: a file, a torchvision name, or seeded random ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException

import torch

from anomaly_core.features import backbone_state
from anomaly_core.forms import BackboneForm
from anomaly_core.router import router_state
from jobs.storage import exists, read_bytes

RANDOM = "random:"


class WeightsError(ValueError):
    """Weights that cannot be had; the message names them and the remedy."""


@dataclass(frozen=True)
class BackboneWeights:
    """ResNet-50 weights up to layer3, float32, with their form and where they came from."""

    state: dict[str, torch.Tensor]
    form: BackboneForm
    source: str


def backbone_weights(name: str | None, form: BackboneForm | None) -> BackboneWeights:
    """ResNet-50 weights. None is torchvision's DEFAULT (IMAGENET1K_V2), which is what the reference used.

    name: a .pth file (path or URI) or a torchvision name. A file says nothing of its form, v1.5 unless ``form`` is
    given. Raises WeightsError.
    """
    from torchvision.models import ResNet50_Weights

    name = name or "DEFAULT"
    if name in ResNet50_Weights.__members__:
        if form == "v1":
            raise WeightsError(f"torchvision's ResNet-50 weights {name} are of form v1.5, not v1")
        entry = ResNet50_Weights[name]
        state = _download(lambda: entry.get_state_dict(progress=False, check_hash=True), f"ResNet-50 {entry.name}")
        return BackboneWeights(backbone_state(state), "v1.5", f"torchvision ResNet-50 {entry.name}")
    try:
        return BackboneWeights(backbone_state(_file(name, "--backbone-weights")), form or "v1.5", _base(name))
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"--backbone-weights {name}: {error}") from error


def router_weights(name: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """ResNet-18 weights to fine-tune from, and where they came from; an empty dict for ``random:...``.

    None is torchvision's DEFAULT (IMAGENET1K_V1). Raises WeightsError.
    """
    from torchvision.models import ResNet18_Weights

    name = name or "DEFAULT"
    if name.startswith(RANDOM):
        return {}, name
    if name in ResNet18_Weights.__members__:
        entry = ResNet18_Weights[name]
        state = _download(lambda: entry.get_state_dict(progress=False, check_hash=True), f"ResNet-18 {entry.name}")
        return dict(state), f"torchvision ResNet-18 {entry.name}"
    return _file(name, "--router-weights"), _base(name)


def random_seed(name: str) -> int:
    """The seed in ``random:SEED``. Raises WeightsError."""
    digits = name.removeprefix(RANDOM)
    if not digits.isdecimal():
        raise WeightsError(f"{name}: write random:SEED, such as random:0")
    return int(digits)


def _download(get: Callable[[], dict[str, torch.Tensor]], what: str) -> dict[str, torch.Tensor]:
    try:
        return get()
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: torch's, for a wrong hash
        raise WeightsError(
            f"torchvision's {what} weights cannot be downloaded ({error}). On a machine without internet give a file, "
            "or copy it into torch's hub cache first"
        ) from error


def _file(name: str, option: str) -> dict[str, torch.Tensor]:
    if not exists(name):
        raise WeightsError(f"{option} {name}: neither a file nor a torchvision name such as IMAGENET1K_V1")
    try:
        data = read_bytes(name)
    except IsADirectoryError as error:
        raise WeightsError(f"{option} {name}: a folder, not a file of weights") from error
    try:
        return router_state(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises nearly anything on foreign bytes
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{option} {name}: not a file of weights ({said})") from error


def _base(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
