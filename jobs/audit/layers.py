"""Feature layers on their way from one process to another."""

from __future__ import annotations

import warnings
from typing import Any

import numpy.typing as npt
import torch

from anomaly_core.forms import Precision


def pack(layer: torch.Tensor) -> npt.NDArray[Any]:
    """A layer (N, C, H, W) as a contiguous array (N, H, W, C) that Ray ships without a copy; bfloat16 as int16."""
    rows = layer.permute(0, 2, 3, 1).contiguous()
    return (rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows).numpy()


def unpack(array: npt.NDArray[Any], precision: Precision) -> torch.Tensor:
    """The layer again, channels_last, (N, C, H, W). Shares memory with the array, which must not be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the array cannot be written to: nobody does
        rows = torch.from_numpy(array)
    return (rows.view(torch.bfloat16) if precision == "bfloat16" else rows).permute(0, 3, 1, 2)
