"""Pictures of an error map, coloured relative to the threshold.

Scaling each picture by its own minimum and maximum makes good parts glow. Here a colour means the same in every
picture of a category: half the threshold and below is dark, the threshold is orange, twice the threshold is white.
In overlays a line runs where the error crosses the threshold.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

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


# White on the side at and above the threshold, black on the other: one of them shows on any picture.
LINE_ABOVE, LINE_BELOW = (255, 255, 255), (0, 0, 0)
# So many times as long as each of its halves is wide is the shorter side of a picture; a pixel is the least.
_SIDE_TO_LINE = 448
# So many pixels at once: of a whole picture of 100 megapixels, what is computed on the way would take gigabytes.
_AT_ONCE = 2**20


def heatmap(relative: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Relative map (H, W) to its colours, uint8 (H, W, 3)."""
    result = np.empty((*relative.shape, 3), np.uint8)
    for rows in _bands(relative.shape):
        result[rows] = _COLOURS[_step(relative[rows])]
    return result


def overlay(relative: npt.NDArray[np.float32], picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The colours of a relative map (H, W) laid over the picture (H, W, 3), with a line where it crosses 1.

    What lies below half the threshold is left untouched, except by the line where the error is as steep as that.
    """
    result = np.empty((*relative.shape, 3), np.uint8)
    for rows in _bands(relative.shape):
        step = _step(relative[rows])
        opacity = _OPACITIES[step][..., None]
        result[rows] = (picture[rows] * (256 - opacity) + _COLOURS[step] * opacity + 128) >> 8
    _draw_line(result, relative >= 1)
    return result


def _draw_line(picture: npt.NDArray[np.uint8], above: npt.NDArray[np.bool_]) -> None:
    """Draw into a picture (H, W, 3) the border between what is at or above the threshold, and what is not, (H, W)."""
    line = np.zeros_like(above)
    for axis in (0, 1):
        here, there = _neighbours(above, axis)
        crossing = here != there
        for pixels in _neighbours(line, axis):
            pixels |= crossing
    for number in range(1, max(1, round(min(above.shape) / _SIDE_TO_LINE))):
        _widen(line, corners=number % 2 == 0)
    at = np.flatnonzero(line)
    colours = np.array([LINE_BELOW, LINE_ABOVE], np.uint8)
    picture.reshape(-1, 3)[at] = colours[above.ravel()[at].astype(np.intp)]


def _widen(line: npt.NDArray[np.bool_], *, corners: bool) -> None:
    """Add the pixels beside a line, those at its corners too or not; in turn they make it about as wide every way."""
    before = line.copy()
    for axis in (0, 1):
        here, there = _neighbours(line, axis)
        of_here, of_there = _neighbours(line.copy() if corners else before, axis)
        here |= of_there
        there |= of_here


def _neighbours(values: npt.NDArray[np.bool_], axis: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Views of all pixels that have a next one along an axis, and of the next ones."""
    return (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _AT_ONCE // shape[1])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def _step(relative: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return (np.clip(relative, 0, STOPS[-1, 0]) * ((STEPS - 1) / STOPS[-1, 0]) + 0.5).astype(np.uint16)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """uint8 (H, W, 3) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
