"""Pictures of an error map, coloured relative to the threshold.

Scaling each picture by its own minimum and maximum makes good parts glow. Here a colour means the same in every
picture of a category: half the threshold and below is dark, the threshold is orange, twice the threshold is white.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

# (error / threshold, R, G, B, opacity of the overlay): dark violet below, orange at the threshold, white from twice it.
STOPS = np.array(
    [
        (0.00, 8, 6, 28, 0.00),
        (0.50, 38, 20, 90, 0.00),
        (0.75, 130, 28, 110, 0.20),
        (1.00, 236, 104, 32, 0.45),
        (1.50, 250, 196, 60, 0.60),
        (2.00, 255, 255, 220, 0.75),
    ]
)


def relative_map(error_map: npt.ArrayLike, threshold: float, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Error map (28, 28) divided by the threshold and resized as for the score, float32 (height, width).

    size is (width, height) in pixels. Raises ValueError if the threshold is not a positive number.
    """
    if not np.isfinite(threshold) or threshold <= 0:
        raise ValueError(f"a heatmap needs a positive threshold, not {threshold}")
    # Enlarging, Pillow's bilinear filter is the score's (centres half a pixel in, edges held), and needs no torch.
    picture = Image.fromarray(np.asarray(error_map, dtype=np.float32) / np.float32(threshold))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


# The stops in STEPS steps: looking up is six times as fast as interpolating, and no step is a colour wide.
STEPS = 2048
_COLUMNS = [np.interp(np.linspace(0, STOPS[-1, 0], STEPS), STOPS[:, 0], STOPS[:, c]) for c in range(1, 5)]
_COLOURS = np.stack(_COLUMNS[:3], axis=-1).round().astype(np.uint8)
_OPACITIES = (_COLUMNS[3] * 256).round().astype(np.uint16)


def heatmap(relative: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Relative map (H, W) to its colours, uint8 (H, W, 3)."""
    return _COLOURS[_step(relative)]


def overlay(relative: npt.NDArray[np.float32], picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The colours laid over the picture (H, W, 3): what lies below half the threshold is left untouched."""
    step = _step(relative)
    opacity = _OPACITIES[step][..., None]
    return ((picture * (256 - opacity) + _COLOURS[step] * opacity + 128) >> 8).astype(np.uint8)


def _step(relative: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return (np.clip(relative, 0, STOPS[-1, 0]) * ((STEPS - 1) / STOPS[-1, 0]) + 0.5).astype(np.uint16)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """uint8 (H, W, 3) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
