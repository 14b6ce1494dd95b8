"""A turned steel gear on a dark ground."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jobs.demo.flaws import blob, crack
from jobs.demo.part import Flaw, Part
from jobs.demo.scene import (
    Array,
    View,
    bevel,
    blend,
    clouds,
    grain,
    shade,
    shadow,
    soften,
)

TEETH = 22
TIP, ROOT, HUB, BORE = 130.0, 108.0, 57.0, 33.0
HOLES, HOLE_AT, HOLE = 6, 82.0, 13.0
STEEL = (0.98, 1.0, 1.03)


class Gear(Part):
    """Spur gear with a keyed bore, a raised hub and six lightening holes; faces turned on a lathe."""

    category = "gear"
    flaws: ClassVar[dict[str, Flaw]]

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.tips = np.full(TEETH, TIP, dtype=np.float32)
        self.ragged = clouds(rng, view, 5.0)
        self.ground = 0.01 * clouds(rng, view, 60.0) + 0.012 * grain(rng, view)
        self.turning = self._turning(rng)
        self.sheen = np.float32(rng.normal(0.0, 0.05))

    def _turning(self, rng: np.random.Generator) -> Array:
        """Fine rings the tool left: much detail along the radius, little along the angle."""
        r, theta = self.view.polar
        marks = rng.standard_normal((400, 25), dtype=np.float32)
        marks[:, -1] = marks[:, 0]
        ring = np.minimum((r * np.float32(1.6)).astype(np.int32), 399)
        turn = (theta + np.float32(np.pi)) * np.float32(23.999 / (2 * np.pi))
        part = turn - np.floor(turn)
        low = turn.astype(np.int32)
        turning: Array = marks[ring, low] * (1 - part) + marks[ring, low + 1] * part
        return turning

    def metal(self) -> Array:
        """Coverage of the steel, seen from above."""
        u, v = self.view.uv
        r, theta = self.view.polar
        turn = (theta / np.float32(2 * np.pi)) * TEETH + np.float32(0.5)
        tooth = np.floor(turn)
        tip = self.tips[tooth.astype(np.int32) % TEETH]
        broken = tip < TIP
        tip = tip + np.where(broken, self.ragged * np.float32(1.6), 0)
        width = np.float32(0.31) - (r - ROOT) * np.float32(0.14 / (TIP - ROOT))
        flank = (np.abs(turn - tooth - np.float32(0.5)) - width) * r * np.float32(2 * np.pi / TEETH)
        outline = np.minimum(r - ROOT, np.maximum(flank, r - tip))
        key = np.maximum(np.abs(u) - 7, np.abs(v + BORE) - 8)
        empty = np.minimum(r - BORE, key)
        # All holes at once: fold the angle into one sector, its hole in the middle.
        sector = np.float32(2 * np.pi / HOLES)
        fold = theta - (np.floor(theta / sector) + np.float32(0.5)) * sector
        empty = np.minimum(empty, np.hypot(r * np.cos(fold) - HOLE_AT, r * np.sin(fold)) - HOLE)
        return self.view.inside(np.maximum(outline, -empty))

    def photograph(self) -> Array:
        view = self.view
        r, theta = view.polar
        metal = self.metal()
        ground = np.float32(0.24) + self.ground
        ground = ground * (1 - np.float32(0.75) * shadow(metal, view, 10.0, 6.0))
        # Light off turned steel gathers in two opposite fans.
        fan = np.cos(theta + np.float32(np.arctan2(0.6, 0.8)) + np.float32(0.5) + self.sheen)
        face = np.float32(0.55) + np.float32(0.26) * np.square(np.square(fan)) + np.float32(0.035) * self.turning
        hub = view.inside(r - HUB)
        height = soften(metal, view, 1.1) + np.float32(0.6) * soften(hub, view, 1.3)
        groove = np.exp(-(((r - 101) / np.float32(1.2)) ** 2))
        face = face + np.float32(0.05) * hub - np.float32(0.14) * groove
        face = face + bevel(height, 1.5) * metal
        return blend(shade((0.98, 1.0, 1.06), ground), shade(STEEL, face), metal)

    def broken_tooth(self, picture: Array, rng: np.random.Generator) -> Array:
        first = int(rng.integers(TEETH))
        for k in range(int(rng.choice([1, 1, 2]))):
            self.tips[(first + k) % TEETH] = TIP - rng.uniform(9.0, 21.0)
        flawed = self.photograph()
        self.tips[:] = TIP
        return flawed

    def crack(self, picture: Array, rng: np.random.Generator) -> Array:
        hole = (int(rng.integers(HOLES)) + 0.5) * 2 * np.pi / HOLES
        heading = hole + rng.choice([0.0, np.pi]) + rng.uniform(-0.9, 0.9)
        start = (
            HOLE_AT * np.cos(hole) + HOLE * np.cos(heading),
            HOLE_AT * np.sin(hole) + HOLE * np.sin(heading),
        )
        colours = ((0.07, 0.06, 0.06), (0.9, 0.9, 0.92))
        length, strength = rng.uniform(28.0, 55.0), rng.uniform(0.6, 1.0)
        return crack(self.view, picture, rng, start, heading, length, colours, strength, self.metal())

    def rust(self, picture: Array, rng: np.random.Generator) -> Array:
        where, angle = rng.uniform(66.0, 112.0), rng.uniform(0, 2 * np.pi)
        centre = (where * np.cos(angle), where * np.sin(angle))
        radius = rng.uniform(7.0, 22.0)
        edge = blob(self.view, rng, centre, radius, 0.3)
        pits = clouds(rng, self.view, 4.0)
        alpha = np.clip((np.float32(0.2 * radius) - edge + 3 * pits) / 8, 0, 1) * self.view.inside(edge - 3)
        alpha *= self.metal() * np.float32(rng.uniform(0.5, 0.95))
        tone = np.clip(np.float32(0.5) + np.float32(0.13) * pits, 0.2, 1.0)
        return blend(picture, shade((0.95, 0.48, 0.2), tone), alpha)


Gear.flaws = {"broken_tooth": Gear.broken_tooth, "crack": Gear.crack, "rust": Gear.rust}
