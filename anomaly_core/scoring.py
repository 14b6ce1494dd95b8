"""Error map, score and peak of an image; the decision rules are in ``decision``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from anomaly_core.cae import FoldedCAE
from anomaly_core.device import MICRO_BATCH, SCORED_AT_ONCE, full_float32
from anomaly_core.features import Backbone
from anomaly_core.forms import GRID, ScoreName
from anomaly_core.preprocess import SIZE, normalise
from anomaly_core.router import Router, route

TOP = 10


@dataclass(frozen=True)
class Routed:
    """Router and features of a batch. logits: float32 (N, classes); category: int64 (N,); confidence: float32 (N,);
    layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14) in the precision of the models, on the CPU."""

    logits: npt.NDArray[np.float32]
    category: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    layer2: torch.Tensor
    layer3: torch.Tensor


@dataclass(frozen=True)
class Scored:
    """Scores of a batch. score: float32 (N,), mean squared feature error. error_map: float32 (N, 28, 28).
    peak: float32 (N, 2), x and y of the highest pixel of the 224 x 224 map, its centre, as fractions of the picture."""

    score: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.float32]
    peak: npt.NDArray[np.float32]


class RoutingExtractor:
    """Router and backbone together: from pictures to category and feature layers, in micro-batches.

    The results do not depend on the size of the micro-batch.
    """

    def __init__(
        self, router: Router, backbone: Backbone, device: str, dtype: torch.dtype, micro_batch: int | None = None
    ):
        full_float32()
        self.router, self.backbone = router, backbone
        self.device, self.dtype, self.micro_batch = device, dtype, micro_batch or MICRO_BATCH[device]

    def micro_batches(self, pixels: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Routed]]:
        """uint8 (N, 224, 224, 3) to (which rows, their result), one micro-batch at a time."""
        for start in range(0, len(pixels), self.micro_batch):
            rows = slice(start, min(start + self.micro_batch, len(pixels)))
            yield rows, self(pixels[rows])

    @torch.inference_mode()
    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Routed:
        """uint8 (N, 224, 224, 3) as one batch."""
        images = normalise(torch.tensor(pixels, device=self.device), self.dtype)
        logits = self.router(images).float()
        index, confidence = route(logits)
        layer2, layer3 = self.backbone(images)
        return Routed(logits.cpu().numpy(), index.cpu().numpy(), confidence.cpu().numpy(), layer2.cpu(), layer3.cpu())


class CategoryScorer:
    """The CAE of one category with the score its threshold was calibrated for."""

    def __init__(self, cae: FoldedCAE, score: ScoreName, device: str, dtype: torch.dtype):
        full_float32()
        self.cae, self.score_name = cae, score
        self.device, self.dtype, self.at_once = device, dtype, SCORED_AT_ONCE[device]

    @torch.inference_mode()
    def __call__(
        self, layer2: torch.Tensor | Sequence[torch.Tensor], layer3: torch.Tensor | Sequence[torch.Tensor]
    ) -> Scored:
        """layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14), or N of one image each, to scores.

        The score of an image does not depend on what comes with it.
        """
        maps = torch.empty(len(layer2), GRID, GRID, device=self.device)
        for start in range(0, len(layer2), self.at_once):
            rows = slice(start, start + self.at_once)
            errors = self.cae.errors(self._filled(layer2[rows]), self._filled(layer3[rows]))
            maps[rows] = errors[: len(maps[rows])]
        return Scored(*score_maps(maps, self.score_name))

    def _filled(self, images: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        layer = images if isinstance(images, torch.Tensor) else torch.cat(list(images))
        layer = layer.to(self.device, self.dtype, memory_format=torch.channels_last)
        lacking = self.at_once - len(layer)
        return F.pad(layer, (0, 0, 0, 0, 0, 0, 0, lacking)) if lacking else layer


def error_maps(features: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """E = mean over channels of (F - R)^2, float32 (N, 28, 28)."""
    return (features.float() - reconstruction.float()).square().mean(dim=1)


def upsample(maps: torch.Tensor) -> torch.Tensor:
    """Error maps (N, 28, 28) to (N, 224, 224), bilinear, align_corners=False."""
    return F.interpolate(maps[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]


def score_maps(
    maps: torch.Tensor, name: ScoreName
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Error maps (N, 28, 28) to (scores, error maps, peaks), as in Scored.

    ``top10_mean_224``: mean of the 10 highest pixels after resizing to 224 x 224 (the reference's).
    ``top10_mean_28``: mean of the 10 highest of the 28 x 28 map. Raises ValueError for another name.
    """
    large = upsample(maps).flatten(1)
    if name == "top10_mean_224":
        pixels = large
    elif name == "top10_mean_28":
        pixels = maps.flatten(1)
    else:
        raise ValueError(f"unknown score definition {name!r}")
    score = pixels.topk(TOP, dim=1).values.mean(dim=1)
    highest = large.argmax(dim=1)
    peak = torch.stack([highest % SIZE, highest // SIZE], dim=1).float().add(0.5).div(SIZE)
    return score.cpu().numpy(), maps.cpu().numpy(), peak.cpu().numpy()
