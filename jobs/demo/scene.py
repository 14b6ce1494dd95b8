"""Camera view, anti-aliased stencils, surface texture and exposure for drawn inspection photographs.

All lengths are in units of a picture 320 wide with the origin in its middle, whatever size is drawn.
Pictures are float32 in display space, 0 black and 1 white, one plane per colour (3, size, size), so that a
brightness or coverage layer (size, size) applies to all three at once; `expose` makes them 8-bit RGB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[np.floating]
Colour = tuple[float, float, float]
Point = tuple[float, float]

SPAN = 320.0
OVERSAMPLE = 3
PLAY, TILT, FLICKER = 0.6, 0.25, 0.012
"""How far a part may lie off (drawing units, degrees) and the lamp's brightness may differ, at most.

As close as a good fixture holds: two dozen good images are then enough to show what is normal.
"""
LIGHT = (-0.6, -0.8)
"""Where the lamp stands, as a direction in the picture: upper left, the same for every product."""


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Array, Array]:
    """The pixels' centres; cached because every picture of a night has the same size."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (SPAN / size) - SPAN / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


@dataclass(frozen=True)
class View:
    """One photograph's geometry: the picture's size and where the part lies under the fixed camera."""

    size: int
    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0

    @classmethod
    def jittered(cls, size: int, rng: np.random.Generator) -> View:
        """A part as the fixture holds it."""
        dx, dy = rng.uniform(-PLAY, PLAY, 2)
        return cls(size, float(dx), float(dy), math.radians(rng.uniform(-TILT, TILT)))

    @property
    def pixel(self) -> float:
        """Width of a pixel in drawing units."""
        return SPAN / self.size

    @property
    def x(self) -> Array:
        return _grid(self.size)[0]

    @property
    def y(self) -> Array:
        return _grid(self.size)[1]

    @cached_property
    def uv(self) -> tuple[Array, Array]:
        """The pixels' positions on the part."""
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        x, y = self.x - np.float32(self.dx), self.y - np.float32(self.dy)
        return c * x + s * y, c * y - s * x

    @cached_property
    def polar(self) -> tuple[Array, Array]:
        """Radius and angle of the pixels about the part's centre."""
        u, v = self.uv
        return np.hypot(u, v), np.arctan2(v, u)

    def inside(self, distance: Array, soft: float = 0.0) -> Array:
        """Coverage of a shape from its signed distance, with an edge one pixel (plus `soft`) wide."""
        cover: Array = np.clip(0.5 - distance / np.float32(self.pixel + soft), 0.0, 1.0)
        return cover


class Stencil:
    """A coverage layer in which polygons, discs and lines are drawn oversampled, in the part's positions."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.factor = view.size * OVERSAMPLE / SPAN
        self.cos, self.sin = math.cos(view.angle) * self.factor, math.sin(view.angle) * self.factor
        self.x0, self.y0 = (view.dx + SPAN / 2) * self.factor, (view.dy + SPAN / 2) * self.factor
        self.layer = Image.new("L", (view.size * OVERSAMPLE, view.size * OVERSAMPLE), 0)
        self.pen = ImageDraw.Draw(self.layer)

    def _at(self, points: Sequence[Point] | NDArray[np.floating]) -> list[tuple[float, float]]:
        """Positions on the part -> positions in the layer (plain numbers: a few points at a time)."""
        c, s = self.cos, self.sin
        return [(c * u - s * v + self.x0, s * u + c * v + self.y0) for u, v in points]

    def polygon(self, points: Sequence[Point] | NDArray[np.floating], value: float = 1.0) -> Stencil:
        self.pen.polygon(self._at(points), fill=round(255 * value))
        return self

    def rectangle(self, cx: float, cy: float, w: float, h: float, value: float = 1.0) -> Stencil:
        a, b = w / 2, h / 2
        return self.polygon([(cx - a, cy - b), (cx + a, cy - b), (cx + a, cy + b), (cx - a, cy + b)], value)

    def disc(self, cx: float, cy: float, radius: float, value: float = 1.0) -> Stencil:
        (x, y), r = self._at([(cx, cy)])[0], radius * self.factor
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=round(255 * value))
        return self

    def line(self, points: Sequence[Point] | NDArray[np.floating], width: float, value: float = 1.0) -> Stencil:
        wide = max(1, round(width * self.factor))
        self.pen.line(self._at(points), fill=round(255 * value), width=wide, joint="curve")
        return self

    def cover(self) -> Array:
        return np.asarray(self.layer.reduce(OVERSAMPLE), dtype=np.float32) / np.float32(255)


def _planes(colour: Colour | Array) -> Array:
    values = np.asarray(colour, dtype=np.float32)
    return values[:, None, None] if values.ndim == 1 else values


def blend(picture: Array, colour: Colour | Array, alpha: Array) -> Array:
    """The picture with a colour laid over it where alpha says."""
    # In place, as a fresh picture costs more than the addition.
    change: Array = (_planes(colour) - picture) * alpha
    change += picture
    return change


def shade(colour: Colour, value: Array) -> Array:
    """A surface of one colour under a brightness map."""
    return _planes(colour) * value


def bevel(height: Array, strength: float) -> Array:
    """Brightness that slopes of a height map gain or lose under the lamp."""
    gy, gx = np.empty_like(height), np.empty_like(height)
    gx[:, 1:-1] = height[:, 2:] - height[:, :-2]
    gy[1:-1] = height[2:] - height[:-2]
    gx[:, [0, -1]] = 0
    gy[[0, -1]] = 0
    return np.float32(strength / 2) * (gx * np.float32(-LIGHT[0]) + gy * np.float32(-LIGHT[1]))


def soften(layer: Array, view: View, sigma: float) -> Array:
    """Gaussian blur; a wide one works on a reduced layer, which looks the same and costs a tenth."""
    sigma = sigma / view.pixel
    step = 4 if sigma >= 5 and view.size % 4 == 0 else 1
    if step == 1:
        return np.asarray(ndimage.gaussian_filter(layer, sigma, truncate=3.0), dtype=np.float32)
    size = view.size // step
    small = layer.reshape(size, step, size, step).mean(axis=(1, 3), dtype=np.float32)
    return _enlarge(ndimage.gaussian_filter(small, sigma / step, truncate=3.0), view.size)


def shadow(cover: Array, view: View, depth: float, sigma: float) -> Array:
    """Soft shadow a part casts on its ground, away from the lamp."""
    x, y = (round(-depth * direction / view.pixel) for direction in LIGHT)
    return np.roll(soften(cover, view, sigma), (y, x), axis=(0, 1))


def _enlarge(small: NDArray[np.floating], size: int) -> Array:
    picture = Image.fromarray(np.asarray(small, dtype=np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def clouds(rng: np.random.Generator, view: View, cell: float) -> Array:
    """Smooth random brightness with features about `cell` wide, standard deviation near one."""
    n = max(2, round(SPAN / cell))
    return _enlarge(rng.standard_normal((n, n), dtype=np.float32), view.size) * np.float32(1.25)


def grain(rng: np.random.Generator, view: View) -> Array:
    """Pixel-fine random texture of a matt surface."""
    return rng.standard_normal((view.size, view.size), dtype=np.float32)


def glint(view: View, cx: float, cy: float, a: float, b: float, angle: float = 0.0) -> Array:
    """A soft specular highlight, fixed to the lamp and not to the part."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = view.x - np.float32(cx), view.y - np.float32(cy)
    return np.exp(-(((c * x + s * y) / np.float32(a)) ** 2) - ((c * y - s * x) / np.float32(b)) ** 2)


@dataclass(frozen=True)
class Exposure:
    """What lamp and sensor do to one photograph: gain, white balance and the noise of every pixel."""

    gain: Array
    noise: Array

    @classmethod
    def drawn(cls, view: View, rng: np.random.Generator) -> Exposure:
        balance = np.float32(1 + rng.uniform(-FLICKER, FLICKER)) * (1 + rng.uniform(-0.005, 0.005, 3))
        return cls(
            _planes(balance.astype(np.float32)),
            rng.standard_normal((3, view.size, view.size), dtype=np.float32),
        )

    def expose(self, view: View, picture: Array) -> NDArray[np.uint8]:
        """The 8-bit photograph: vignetting, gain, and noise that grows with the light as shot noise does."""
        falloff = 1 - np.float32(0.16) * (view.x**2 + view.y**2) / np.float32(2 * (SPAN / 2) ** 2)
        light = np.clip(picture * (self.gain * falloff), 0.0, 1.0).astype(np.float32, copy=False)
        light += self.noise * (np.float32(0.004) + np.float32(0.011) * np.sqrt(light))
        levels = np.clip(light * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))
