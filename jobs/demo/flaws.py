"""Shapes that defects share: irregular blobs, wandering cracks and scratches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobs.demo.scene import Array, Colour, Point, Stencil, View, blend

Path = NDArray[np.float64]


def blob(view: View, rng: np.random.Generator, centre: Point, radius: float, rough: float = 0.2) -> Array:
    """Signed distance (roughly) to an irregular round patch on the part: negative inside."""
    u, v = view.uv
    a, b = u - np.float32(centre[0]), v - np.float32(centre[1])
    theta = np.arctan2(b, a)
    edge = np.ones_like(theta)
    for k in range(2, 8):
        amplitude = rough * rng.uniform(0.3, 1.0) / np.sqrt(k - 1)
        edge += np.float32(amplitude) * np.cos(k * theta + np.float32(rng.uniform(0, 2 * np.pi)))
    distance: Array = np.hypot(a, b) - np.float32(radius) * np.maximum(edge, np.float32(0.25))
    return distance


def wander(
    rng: np.random.Generator, start: Point, heading: float, length: float, wobble: float, step: float = 4.0
) -> Path:
    """A path which strays from its heading as it goes; `wobble` is the stray in radians a step."""
    n = max(2, round(length / step))
    angles = heading + np.cumsum(rng.normal(0.0, wobble, n)) * 0.6 + rng.normal(0.0, wobble, n)
    steps = step * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.vstack([[start], np.asarray(start) + np.cumsum(steps, axis=0)])


def offset(path: Path, by: Point) -> Path:
    """The same path moved, for what runs beside it."""
    moved: Path = path + np.asarray(by)
    return moved


def scratch(
    view: View,
    picture: Array,
    rng: np.random.Generator,
    start: Point,
    length: float,
    colours: tuple[Colour, Colour],
    strength: float,
    within: Array | None = None,
) -> Array:
    """One to three nearly parallel strokes: the bared material with a burr of the other colour beside it."""
    bare, burr = colours
    heading = rng.uniform(0, 2 * np.pi)
    deep, side = Stencil(view), Stencil(view)
    for k in range(int(rng.integers(1, 4))):
        begin = (start[0] - np.sin(heading) * 4.5 * k, start[1] + np.cos(heading) * 4.5 * k)
        path = wander(rng, begin, heading, length * (1.0 if k == 0 else rng.uniform(0.4, 0.9)), 0.05)
        width = rng.uniform(1.4, 3.0)
        side.line(offset(path, (0.9, 1.1)), width + 0.6)
        deep.line(path, width)
    limit = np.float32(1.0) if within is None else within
    picture = blend(picture, burr, np.float32(0.6 * strength) * side.cover() * limit)
    return blend(picture, bare, np.float32(strength) * deep.cover() * limit)


def crack(
    view: View,
    picture: Array,
    rng: np.random.Generator,
    start: Point,
    heading: float,
    length: float,
    colours: tuple[Colour, Colour],
    strength: float,
    within: Array | None = None,
) -> Array:
    """A jagged line that thins out and branches, dark with a lit lip on the side away from the lamp."""
    dark, lip = colours
    trunk = wander(rng, start, heading, length, 0.32)
    width = rng.uniform(1.5, 2.5)
    line, lit = Stencil(view), Stencil(view)
    branches = [(trunk, width)]
    for _ in range(int(rng.integers(0, 3))):
        at = int(rng.integers(1, len(trunk) - 1))
        turn = heading + rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.1)
        point = (float(trunk[at, 0]), float(trunk[at, 1]))
        branches.append((wander(rng, point, turn, length * rng.uniform(0.2, 0.5), 0.3), 0.7 * width))
    for path, wide in branches:
        half = max(2, len(path) * 2 // 3)
        lit.line(offset(path[:half], (1.0, 1.2)), wide)
        # The tail is drawn thinner: a crack ends in a point.
        line.line(path[:half], wide).line(path[half - 1 :], 0.6 * wide)
    limit = np.float32(1.0) if within is None else within
    picture = blend(picture, lip, np.float32(0.5 * strength) * lit.cover() * limit)
    return blend(picture, dark, np.float32(strength) * line.cover() * limit)
