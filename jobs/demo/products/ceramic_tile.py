"""A glazed, speckled ceramic tile."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jobs.demo.flaws import blob, crack
from jobs.demo.part import Flaw, Part
from jobs.demo.scene import (
    Array,
    Stencil,
    View,
    bevel,
    blend,
    clouds,
    glint,
    grain,
    shade,
    shadow,
    soften,
)

HALF, CORNER = 139.0, 5.0
GLAZE, BODY = (0.90, 0.865, 0.785), (0.68, 0.42, 0.31)


class CeramicTile(Part):
    """Cream glaze with brown and black speckles, a rounded edge, the lamp's softbox mirrored in it."""

    category = "ceramic_tile"
    flaws: ClassVar[dict[str, Flaw]]

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.bench = 0.05 * clouds(rng, view, 40.0) + 0.04 * grain(rng, view)
        self.melt = clouds(rng, view, 45.0)
        self.ripple = clouds(rng, view, 12.0)
        self.brown = self._speckles(rng, 230, 0.7, 1.7)
        self.black = self._speckles(rng, 150, 0.6, 1.2)

    def _speckles(self, rng: np.random.Generator, count: int, small: float, large: float) -> Array:
        layer = Stencil(self.view)
        spots = rng.uniform(-HALF, HALF, (count, 2))
        for (cx, cy), r, tone in zip(
            spots, rng.uniform(small, large, count), rng.uniform(0.3, 0.9, count), strict=True
        ):
            layer.disc(cx, cy, r, tone)
        return layer.cover()

    def distance(self) -> Array:
        u, v = self.view.uv
        a, b = np.abs(u) - (HALF - CORNER), np.abs(v) - (HALF - CORNER)
        return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - CORNER

    def photograph(self) -> Array:
        view = self.view
        edge = self.distance()
        tile = view.inside(edge)
        bench = shade((0.40, 0.37, 0.34), 1 + self.bench)
        bench *= 1 - np.float32(0.65) * shadow(tile, view, 7.0, 4.0)
        light = 1 + np.float32(0.011) * self.melt + np.float32(0.006) * self.ripple
        light += bevel(soften(np.clip(-edge / 6, 0, 1), view, 1.0), 1.6)
        light -= np.float32(0.0003) * (view.x + view.y)
        glaze = shade(GLAZE, light)
        glaze = blend(glaze, (0.50, 0.34, 0.22), np.float32(0.75) * self.brown)
        glaze = blend(glaze, (0.16, 0.14, 0.13), np.float32(0.8) * self.black)
        glaze = glaze + np.float32(0.13) * glint(view, -60, -70, 75, 40, -0.6)
        return blend(bench, glaze, tile)

    def chipped_edge(self, picture: Array, rng: np.random.Generator) -> Array:
        """Glaze broken off at the edge: the red body bared, its break lit on the far side."""
        along, radius = rng.uniform(-HALF, HALF), rng.uniform(7.0, 19.0)
        side = int(rng.integers(4))
        near = HALF - rng.uniform(0.0, 4.0)
        centre = ((along, -near), (near, along), (along, near), (-near, along))[side]
        edge = blob(self.view, rng, centre, radius, 0.28)
        tile = self.view.inside(self.distance())
        chip = self.view.inside(edge) * tile
        coarse = clouds(rng, self.view, 3.5)
        depth = soften(chip, self.view, 2.0)
        tone = np.float32(0.95) + np.float32(0.09) * coarse - bevel(depth, 1.6)
        lip = np.exp(-(((edge - 1) / np.float32(1.4)) ** 2)) * tile * (np.abs(edge) < 4)
        flawed = blend(picture, (1.0, 0.98, 0.94), np.float32(0.6) * lip)
        return blend(flawed, shade(BODY, tone), chip)

    def crack(self, picture: Array, rng: np.random.Generator) -> Array:
        cx, cy = rng.uniform(-90, 90, 2)
        heading = rng.uniform(0, 2 * np.pi)
        colours = ((0.15, 0.11, 0.09), (1.0, 0.98, 0.95))
        length, strength = rng.uniform(35.0, 95.0), rng.uniform(0.4, 1.0)
        within = self.view.inside(self.distance())
        return crack(self.view, picture, rng, (cx, cy), heading, length, colours, strength, within)

    def glaze_spot(self, picture: Array, rng: np.random.Generator) -> Array:
        """A patch where the glaze ran thin or took up iron: bluish, rusty or grey; half have a pinhole."""
        cx, cy = rng.uniform(-112, 112, 2)
        radius = rng.uniform(6.0, 20.0)
        edge = blob(self.view, rng, (cx, cy), radius, 0.18)
        stain = ((0.40, 0.52, 0.62), (0.70, 0.44, 0.22), (0.50, 0.48, 0.46))[int(rng.integers(3))]
        alpha = np.clip(-edge / 6 + np.float32(0.5), 0, 1) * np.float32(rng.uniform(0.3, 0.8))
        flawed = blend(picture, stain, alpha)
        if rng.random() < 0.5:
            u, v = self.view.uv
            pit = np.hypot(u - np.float32(cx), v - np.float32(cy)) - np.float32(rng.uniform(1.6, 3.2))
            flawed = blend(flawed, (0.12, 0.09, 0.07), self.view.inside(pit, 0.8))
        return flawed


CeramicTile.flaws = {
    "chipped_edge": CeramicTile.chipped_edge,
    "crack": CeramicTile.crack,
    "glaze_spot": CeramicTile.glaze_spot,
}
