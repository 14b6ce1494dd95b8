"""Recipes, fitting the router, and what training needs around it, from images held as arrays or memory maps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from anomaly_core.calibration import MEAN_PLUS_3SIGMA
from anomaly_core.device import DTYPES, MICRO_BATCH
from anomaly_core.features import Backbone
from anomaly_core.forms import Precision
from anomaly_core.preprocess import normalise
from anomaly_core.router import build_router, pretrained_router, route

Progress = Callable[[int, int], None]
# Normal images of a category: below, holding some of them out costs more than training once a fold.
FEW = 1000


@dataclass(frozen=True)
class Recipe:
    """How a bundle is trained. Rates are Adam's; batches count images.

    cae: by gradient descent, or set in closed form to the principal components. cae_schedule: the rate stays, or falls
    to zero along a cosine, and then the last epoch is kept. cae_positions: share of the positions of each image, chosen
    anew every time, that a step sees. standardise: the autoencoder works on channels of mean 0 and variance 1, which is
    folded into its convolutions afterwards. weighting: of the channels in the error map, all the same, or one over the
    mean squared error that is left in each on the images that thresholds are set from; those of layer2 then count
    layer2_weight times as much.

    settle_norms: average the router's BatchNorm statistics over the training images once it is trained.

    held_out, folds: what the threshold of a category is set from. A share of the normal images that its autoencoder
    does not see; or, where there are fewer than FEW, all of them, each scored by the one of so many autoencoders that
    has not seen it, while the one that is kept sees all. With neither, the images that it was trained on, as the
    reference does.
    """

    name: str
    router_epochs: int = 5
    router_rate: float = 1e-4
    router_batch: int = 32
    settle_norms: bool = False
    cae_epochs: int = 15
    cae_rate: float = 1e-3
    cae_batch: int = 8
    cae: Literal["gradient", "principal"] = "gradient"
    cae_schedule: Literal["constant", "cosine"] = "constant"
    cae_positions: float = 1.0
    standardise: bool = False
    weighting: Literal["none", "residual"] = "none"
    layer2_weight: float = 1.0
    held_out: float = 0.0
    folds: int = 0
    threshold_rule: str = MEAN_PLUS_3SIGMA

    def folds_of(self, count: int) -> int:
        """Into how many folds so many images are parted; 0 if they are not."""
        return min(self.folds, count) if count < FEW or not self.held_out else 0

    @property
    def calibrates_on_training_images(self) -> bool:
        """Whether thresholds are set from images that the autoencoders have seen."""
        return not self.held_out and not self.folds


RECIPES: Mapping[str, Recipe] = {
    "reference": Recipe("reference"),
    # What won on synthetic defects (tests/bench/recipes.py); thresholds that keep a promise.
    "default": Recipe(
        "default",
        cae_rate=3e-3,
        cae_batch=4,
        cae_epochs=120,
        cae_schedule="cosine",
        cae_positions=1 / 16,
        standardise=True,
        weighting="residual",
        layer2_weight=3.0,
        held_out=0.2,
        folds=5,
        threshold_rule="conformal:0.01",
    ),
    # For random weights and some dozens of images, as in the demo: the router starts from nothing, so it learns faster
    # and longer; gradient descent would have too few steps for an autoencoder, and a dozen steps are too few for the
    # running averages of BatchNorm, which then route by chance what the batches' own statistics route well.
    "small": Recipe(
        "small",
        router_epochs=4,
        router_rate=1e-3,
        router_batch=16,
        settle_norms=True,
        cae="principal",
        held_out=0.25,
    ),
}


@dataclass(frozen=True)
class Fitted:
    """A trained model: its state dict on the CPU, mean loss per epoch, the epoch kept (0-based), seconds."""

    state: dict[str, torch.Tensor]
    losses: list[float]
    best_epoch: int
    seconds: float


def fit_router(
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    classes: int,
    initial: Mapping[str, torch.Tensor],
    recipe: Recipe,
    *,
    device: str,
    precision: Precision,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Fitted, int, float]:
    """Fine-tune a ResNet-18 with cross-entropy; the epoch with the lowest mean training loss is kept.

    pixels: uint8 (N, 224, 224, 3), may be a memory map. labels: int64 (N,), class indices. initial: ImageNet weights
    (see pretrained_router), or an empty mapping to start from nothing.

    Returns the fit, the number of norms kept in eval mode, and the accuracy on the training images in eval mode.
    """
    start = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, frozen = pretrained_router(classes, initial) if initial else _fresh_router(classes)
    model.to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.router_rate, fused=True)
    generator = np.random.default_rng(seed)
    best, losses = Best(), []
    for epoch in range(recipe.router_epochs):
        _train_but(model, frozen)
        total = 0.0
        for rows in batches(len(pixels), recipe.router_batch, generator):
            images = _images(pixels, rows, device)
            target = torch.from_numpy(labels[np.sort(rows)]).to(device)
            optimiser.zero_grad(set_to_none=True)
            with autocast(device, precision):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), target)
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(pixels))
        best.offer(losses[-1], epoch, model)
        if progress:
            progress(epoch + 1, recipe.router_epochs)
    model.load_state_dict(best.state)
    if recipe.settle_norms:
        _settle_norms(model, frozen, pixels, recipe.router_batch, generator, device, precision)
        best.keep(model)
    accuracy = _accuracy(model, pixels, labels, device, precision)
    return Fitted(best.state, losses, best.epoch, time.monotonic() - start), len(frozen), accuracy


def split(count: int, held_out: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of the images to fit and of the images to calibrate on, each ascending; the same ones without held_out.

    Raises ValueError if fewer than two are left for either.
    """
    if held_out == 0:
        return np.arange(count), np.arange(count)
    aside = max(2, round(held_out * count))
    if count - aside < 2:
        raise ValueError(
            f"{count} images are too few to hold out {held_out:g} of them: two at least are needed, and two to fit"
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[aside:]), np.sort(order[:aside])


def parted(count: int, folds: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Indices of the images of each fold, ascending; sizes differ by one at most."""
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.array_split(order, folds)]


@torch.inference_mode()
def extract_layers(
    pixels: npt.NDArray[np.uint8],
    backbone: Backbone,
    layer2: torch.Tensor,
    layer3: torch.Tensor,
    *,
    device: str,
    precision: Precision,
    micro_batch: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14), each image once. They may be memory-mapped."""
    micro_batch = micro_batch or MICRO_BATCH[device]
    for start in range(0, len(pixels), micro_batch):
        rows = slice(start, min(start + micro_batch, len(pixels)))
        images = normalise(torch.tensor(pixels[rows], device=device), DTYPES[precision])
        two, three = backbone(images)
        layer2[rows], layer3[rows] = two.cpu(), three.cpu()
        if progress:
            progress(rows.stop, len(pixels))


class Best:
    """Keeps the state dict of the epoch with the lowest loss so far."""

    def __init__(self) -> None:
        self.loss, self.epoch = float("inf"), -1
        self.state: dict[str, torch.Tensor] = {}

    def offer(self, loss: float, epoch: int, model: nn.Module, *, always: bool = False) -> None:
        """An epoch's loss and the model it left; always: the last one counts as the best. Raises FloatingPointError."""
        if not np.isfinite(loss):
            raise FloatingPointError(f"training diverged: the loss of epoch {epoch + 1} is {loss}")
        if loss < self.loss or always:
            self.loss, self.epoch = loss, epoch
            self.keep(model)

    def keep(self, model: nn.Module) -> None:
        """Keep this model, whatever its loss."""
        state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        self.state = copy.deepcopy(state)


def _fresh_router(classes: int) -> tuple[nn.Module, Sequence[nn.Module]]:
    return build_router(classes), []


def batches(count: int, size: int, generator: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of all images in a new order, so many at a time."""
    order = generator.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Products in the precision, everything else in float32."""
    return torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def _settle_norms(
    model: nn.Module,
    frozen: Sequence[nn.Module],
    pixels: npt.NDArray[np.uint8],
    batch: int,
    generator: np.random.Generator,
    device: str,
    precision: Precision,
) -> None:
    """Set the statistics of all norms that are not frozen to their average over batches of the training images, each
    weighed by its images ("precise BatchNorm", Wu and Johnson 2021). The model is of no use for more training then."""
    _train_but(model, frozen)
    norms = [norm for norm in model.modules() if isinstance(norm, nn.BatchNorm2d) and norm.training]
    for norm in norms:
        norm.reset_running_stats()
    seen = 0
    for rows in batches(len(pixels), batch, generator):
        seen += len(rows)
        for norm in norms:
            norm.momentum = len(rows) / seen  # a last batch of one image weighs as much as one image
        with autocast(device, precision):
            model(_images(pixels, rows, device))


def _train_but(model: nn.Module, frozen: Sequence[nn.Module]) -> None:
    model.train()
    for norm in frozen:
        norm.eval()


def _images(pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], device: str) -> torch.Tensor:
    return normalise(torch.tensor(pixels[np.sort(rows)], device=device))


@torch.inference_mode()
def _accuracy(
    model: nn.Module, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], device: str, precision: Precision
) -> float:
    model.eval()
    right = 0
    for start in range(0, len(pixels), 64):
        images = normalise(torch.tensor(pixels[start : start + 64], device=device))
        with autocast(device, precision):
            index, _ = route(model(images))
        right += int((index.cpu().numpy() == labels[start : start + 64]).sum())
    return right / len(pixels)
