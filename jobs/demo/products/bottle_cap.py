"""A printed crown cap from above."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jobs.demo.flaws import blob, scratch
from jobs.demo.part import Flaw, Part
from jobs.demo.scene import (
    LIGHT,
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

FLUTES = 21
RIM, SHOULDER = 120.0, 99.0
RED, INK = (0.78, 0.09, 0.10), (0.95, 0.92, 0.84)


class BottleCap(Part):
    """Red crown cap: 21 flutes in the skirt, a printed ring, beads and a star on the top."""

    category = "bottle_cap"
    flaws: ClassVar[dict[str, Flaw]]

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.belt = 0.009 * clouds(rng, view, 50.0) + 0.018 * grain(rng, view)
        self.peel = clouds(rng, view, 6.0)
        self.star = float(rng.normal(0.0, 0.02))
        _, theta = view.polar
        self.push = np.zeros_like(theta)

    def print(self) -> Array:
        """Coverage of the ink."""
        r, _ = self.view.polar
        layer = Stencil(self.view)
        spikes = [
            (rad * np.cos(a + self.star), rad * np.sin(a + self.star))
            for k in range(10)
            for rad, a in [(44.0 if k % 2 == 0 else 19.0, np.pi * k / 5 - np.pi / 2)]
        ]
        layer.polygon(spikes)
        for k in range(24):
            a = 2 * np.pi * k / 24 + self.star
            layer.disc(66 * np.cos(a), 66 * np.sin(a), 2.6)
        ring = self.view.inside(np.abs(r - 81) - 4) + self.view.inside(np.abs(r - 52) - 1.1)
        return np.clip(layer.cover() + ring, 0, 1)

    def cover(self) -> Array:
        """Coverage of the cap, with the skirt pushed in where it is bent."""
        r, theta = self.view.polar
        return self.view.inside(r - (RIM + 4 * np.cos(FLUTES * theta)) + self.push)

    def photograph(self, ink: Array | None = None) -> Array:
        view = self.view
        r, theta = view.polar
        cap = self.cover()
        belt = shade((0.68, 0.70, 0.71), 1 + self.belt)
        belt *= 1 - np.float32(0.62) * shadow(cap, view, 11.0, 8.0)
        colour = blend(np.asarray(RED, dtype=np.float32)[:, None, None], INK, self.print() if ink is None else ink)
        toward = np.cos(theta - np.float32(np.arctan2(LIGHT[1], LIGHT[0])))
        # Top: a shallow dome; skirt: steep, so it takes the light from its own side only.
        skirt = np.clip((r + self.push - SHOULDER) / (RIM - SHOULDER), 0, 1.2)
        flute = np.cos(FLUTES * theta) * np.float32(0.5) + np.float32(0.5)
        light = np.float32(0.88) + toward * (r / np.float32(RIM)) * np.float32(0.10)
        light += np.sqrt(skirt) * (np.float32(-0.30) + np.float32(0.28) * toward)
        light += skirt * np.float32(0.55) * (flute - np.float32(0.5)) * (np.float32(0.75) + toward * 0.4)
        light += np.float32(0.008) * self.peel - np.float32(0.02) * self.push * (skirt > 0)
        # The lamp mirrored in the rounded shoulder and, faintly, on the top.
        lip = np.exp(-(((r + self.push - SHOULDER + 2) / np.float32(3.2)) ** 2))
        gloss = np.float32(0.55) * lip * np.square(np.clip(toward, 0, 1))
        gloss += np.float32(0.34) * glint(view, -42, -50, 40, 17, -0.7)
        gloss += np.float32(0.16) * np.clip(flute * 3 - 2, 0, 1) * np.clip(skirt * (1.2 - skirt) * 3, 0, 1)
        light += bevel(soften(cap, view, 0.9), 0.5)
        return blend(belt, colour * light + gloss, cap)

    def bent_edge(self, picture: Array, rng: np.random.Generator) -> Array:
        r, theta = self.view.polar
        at, wide = rng.uniform(-np.pi, np.pi), rng.uniform(0.07, 0.17)
        turn = np.angle(np.exp(1j * (theta - at))).astype(np.float32)
        bump = np.exp(-((turn / np.float32(wide)) ** 2)) * np.clip((r - 84) / 20, 0, 1)
        self.push = np.float32(rng.uniform(7.0, 15.0)) * bump
        flawed = self.photograph()
        self.push = np.zeros_like(theta)
        return flawed

    def misprint(self, picture: Array, rng: np.random.Generator) -> Array:
        """Ink missing where the printing pad was dirty, or smeared beyond its edge."""
        angle = rng.uniform(0, 2 * np.pi)
        centre = (78 * np.cos(angle), 78 * np.sin(angle))
        ink = self.print()
        if rng.random() < 0.5:
            gap = np.clip(-blob(self.view, rng, centre, rng.uniform(10.0, 22.0), 0.3) / 3 + 0.5, 0, 1)
            return self.photograph(ink * (1 - gap))
        patch = np.clip(-blob(self.view, rng, centre, rng.uniform(12.0, 20.0), 0.2) / 5 + 0.5, 0, 1)
        step = round(rng.uniform(6.0, 11.0) / self.view.pixel)
        smear = sum(np.roll(ink, (k, k // 2), axis=(0, 1)) for k in range(step)) / np.float32(step)
        return self.photograph(np.maximum(ink, np.minimum(1.4 * smear, 1) * patch * np.float32(0.9)))

    def scratch(self, picture: Array, rng: np.random.Generator) -> Array:
        angle, where = rng.uniform(0, 2 * np.pi), rng.uniform(5.0, 75.0)
        start = (where * np.cos(angle), where * np.sin(angle))
        colours = ((0.88, 0.88, 0.90), (0.25, 0.04, 0.05))
        r, _ = self.view.polar
        within = self.view.inside(r - SHOULDER, 4)
        length, strength = rng.uniform(30.0, 80.0), rng.uniform(0.5, 1.0)
        return scratch(self.view, picture, rng, start, length, colours, strength, within)


BottleCap.flaws = {
    "bent_edge": BottleCap.bent_edge,
    "misprint": BottleCap.misprint,
    "scratch": BottleCap.scratch,
}
