"""Frozen features of training images, in files that are mapped: those of a category can be larger than memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anomaly_core.device import DTYPES
from anomaly_core.features import LAYER2_CHANNELS, LAYER3_CHANNELS, load_backbone
from anomaly_core.forms import GRID, BackboneForm, Precision
from anomaly_core.training import Progress, extract_layers
from jobs.storage import scratch
from jobs.training.config import TrainingError
from jobs.training.images import decode_images
from jobs.training.tasks import TaskSettings


@dataclass(frozen=True)
class Extracted:
    """Of some images: SHA-256 of each file; layer2 (N, 512, 28, 28) and layer3 (N, 1024, 14, 14), mapped from files."""

    digests: list[bytes]
    layer2: torch.Tensor
    layer3: torch.Tensor


@contextmanager
def extracted(
    uris: Sequence[str],
    backbone: Mapping[str, torch.Tensor],
    form: BackboneForm,
    settings: TaskSettings,
    progress: Progress | None = None,
) -> Iterator[Extracted]:
    """Images as the autoencoder sees them; the files of their features last as long as the context."""
    with scratch() as local:
        pixels, digests = decode_images(uris, local / "pixels", settings.preprocessing)
        layer2, layer3 = _layers(len(pixels), settings.precision, local)
        model = load_backbone(backbone, form, settings.device, DTYPES[settings.precision])
        device, precision = settings.device, settings.precision
        extract_layers(pixels, model, layer2, layer3, device=device, precision=precision, progress=progress)
        yield Extracted(digests, layer2, layer3)


def _layers(count: int, precision: Precision, local: Path) -> tuple[torch.Tensor, torch.Tensor]:
    def mapped(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        size, dtype = int(np.prod(shape)), DTYPES[precision]
        path = local / name
        _allocate(path, size * dtype.itemsize)
        flat = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
        path.unlink()  # gone when the process is, however it ends
        return flat.view(*shape).permute(0, 3, 1, 2)  # channels last: they are put together in less than half the time

    layer2 = mapped("layer2", (count, GRID, GRID, LAYER2_CHANNELS))
    layer3 = mapped("layer3", (count, GRID // 2, GRID // 2, LAYER3_CHANNELS))
    return layer2, layer3


def _allocate(path: Path, size: int) -> None:
    """A file of bytes that the disk has: a process with a mapped file for which there are none ends without a word."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise TrainingError(
                f"{path.parent}: no room for {size / 1e9:.1f} GB of features; set TMPDIR to a folder on a larger disk"
            ) from error
