"""Synthetic defects on normal images: what a choice between recipes is made by, so that no test image is used for it.

Five kinds, after what others paste (Li et al. 2021, CutPaste; Zavrtanik et al. 2021, DRAEM): a piece of the part in a
wrong place, a thin scar of it, a blot of another texture, a place that is smeared, and a stroke.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import binary_closing, gaussian_filter

Pixels = npt.NDArray[np.uint8]
SIZE = 224
BORDER = 6
FOREGROUND = 18.0


def draw(pixels: Pixels, kind: str, generator: np.random.Generator) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """One defect on a picture uint8 (224, 224, 3): the picture with it, and where it differs, bool (224, 224).

    Tries again until it is on the part and can be seen.
    """
    part = _part(pixels)
    for _ in range(200):
        found = KINDS[kind](pixels, part, generator)
        changed = np.abs(found.astype(np.int16) - pixels).max(axis=2) > 12
        if changed.sum() >= 12 and (changed & part).sum() >= 0.5 * changed.sum():
            return found, changed
    raise ValueError(f"no {kind} could be drawn: the picture is nearly empty")


def _part(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Where the part is: what differs from the picture's border, or everything if the border is part of it."""
    edge = np.concatenate([pixels[:BORDER].reshape(-1, 3), pixels[-BORDER:].reshape(-1, 3)])
    distance = np.abs(pixels - np.median(edge, axis=0)).max(axis=2)
    found = binary_closing(distance > FOREGROUND, iterations=3)
    return found if 0.02 < found.mean() < 0.9 else np.ones(found.shape, dtype=bool)


def _centre(part: npt.NDArray[np.bool_], generator: np.random.Generator) -> tuple[int, int]:
    rows, columns = np.nonzero(part)
    chosen = generator.integers(len(rows))
    return int(columns[chosen]), int(rows[chosen])


def _paste(pixels: Pixels, piece: Image.Image, at: tuple[int, int], mask: Image.Image) -> Pixels:
    picture = Image.fromarray(pixels)
    picture.paste(piece, (at[0] - piece.width // 2, at[1] - piece.height // 2), mask)
    return np.asarray(picture)


def _cut(
    pixels: Pixels, part: npt.NDArray[np.bool_], width: int, height: int, generator: np.random.Generator
) -> Image.Image:
    x, y = _centre(part, generator)
    left, top = (int(np.clip(c - side // 2, 0, SIZE - side)) for c, side in ((x, width), (y, height)))
    piece = Image.fromarray(pixels[top : top + height, left : left + width])
    gain = generator.uniform(0.75, 1.25)
    return piece.point(lambda value: min(255, int(value * gain)))


def _patch(pixels: Pixels, part: npt.NDArray[np.bool_], generator: np.random.Generator) -> Pixels:
    width, height = (int(generator.integers(6, 28)) for _ in range(2))
    return _turned(pixels, part, width, height, float(generator.uniform(-45, 45)), 1.0, generator)


def _scar(pixels: Pixels, part: npt.NDArray[np.bool_], generator: np.random.Generator) -> Pixels:
    width, height = int(generator.integers(2, 6)), int(generator.integers(8, 28))
    return _turned(pixels, part, width, height, float(generator.uniform(-90, 90)), 0.4, generator)


def _turned(
    pixels: Pixels,
    part: npt.NDArray[np.bool_],
    width: int,
    height: int,
    angle: float,
    softness: float,
    generator: np.random.Generator,
) -> Pixels:
    piece = _cut(pixels, part, width, height, generator).rotate(angle, expand=True)
    mask = Image.new("L", (width, height), 255).rotate(angle, expand=True)
    soft = mask.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(softness)) if width > 5 else mask
    return _paste(pixels, piece, _centre(part, generator), soft)


def _blot(pixels: Pixels, part: npt.NDArray[np.bool_], generator: np.random.Generator) -> Pixels:
    x, y = _centre(part, generator)
    noise = gaussian_filter(generator.normal(size=(SIZE, SIZE)), 5)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * generator.uniform(3, 9) ** 2))
    shape = gaussian_filter((near * (1 + 2 * noise / noise.std()) > 0.5).astype(float), 0.7)
    shade = pixels[part].mean(axis=0) + generator.uniform(-90, 90)
    tint = generator.normal(0, 25, 3) * (np.ptp(pixels, axis=2).max() > 0)  # grey pictures have grey defects
    texture = shade + tint + gaussian_filter(generator.normal(0, 40, (SIZE, SIZE, 1)), (1, 1, 0))
    strength = generator.uniform(0.2, 0.8) * shape[..., None]
    return (pixels * (1 - strength) + texture * strength).clip(0, 255).astype(np.uint8)


def _smear(pixels: Pixels, part: npt.NDArray[np.bool_], generator: np.random.Generator) -> Pixels:
    x, y = _centre(part, generator)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    spread, length = generator.uniform(5, 12), generator.uniform(3, 9)
    angle = generator.uniform(0, 2 * np.pi)
    near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    source_x = np.clip(columns - near * length * np.cos(angle), 0, SIZE - 1).round().astype(int)
    source_y = np.clip(rows - near * length * np.sin(angle), 0, SIZE - 1).round().astype(int)
    return pixels[source_y, source_x]


def _stroke(pixels: Pixels, part: npt.NDArray[np.bool_], generator: np.random.Generator) -> Pixels:
    picture, (x, y) = Image.fromarray(pixels), _centre(part, generator)
    points = [(x, y)]
    angle = generator.uniform(0, 2 * np.pi)
    for _ in range(int(generator.integers(3, 9))):
        angle += generator.normal(0, 0.5)
        x, y = x + 4 * np.cos(angle), y + 4 * np.sin(angle)
        points.append((x, y))
    shade = int(np.clip(pixels[part].mean() + generator.choice([-1, 1]) * generator.uniform(25, 90), 0, 255))
    ImageDraw.Draw(picture).line(points, fill=(shade, shade, shade), width=int(generator.integers(1, 3)))
    return np.asarray(picture)


KINDS: dict[str, Callable[[Pixels, npt.NDArray[np.bool_], np.random.Generator], Pixels]] = {
    "patch": _patch,
    "scar": _scar,
    "blot": _blot,
    "smear": _smear,
    "stroke": _stroke,
}
