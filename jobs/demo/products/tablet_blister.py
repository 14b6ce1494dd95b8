"""A foil blister pack with two by three round tablets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jobs.demo.flaws import blob, wander
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

CARD = (106.0, 146.0, 12.0)
"""Half width, half height and corner radius."""
POCKETS = tuple((x, y) for y in (-93.0, 0.0, 93.0) for x in (-50.0, 50.0))
POCKET, TABLET = 41.0, 29.0
COATING = (0.93, 0.70, 0.52)


class TabletBlister(Part):
    """Knurled foil card; each pocket a clear dome over one scored tablet."""

    category = "tablet_blister"
    flaws: ClassVar[dict[str, Flaw]]

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.ground = 0.01 * clouds(rng, view, 70.0) + 0.012 * grain(rng, view)
        self.crinkle = clouds(rng, view, 9.0)
        self.powder = grain(rng, view)
        # A tablet lies loose in its pocket: a little off the middle, its score turned a little.
        self.lie = np.asarray(POCKETS) + rng.normal(0.0, 1.0, (6, 2)).clip(-2, 2)
        self.score = rng.uniform(-0.35, 0.35, 6) - 0.6
        self.gone: set[int] = set()
        self.bite = np.ones_like(self.powder)
        self.crumbs = np.zeros_like(self.powder)

    def tablets(self) -> Array:
        layer = Stencil(self.view)
        for k, (cx, cy) in enumerate(self.lie):
            if k not in self.gone:
                layer.disc(cx, cy, TABLET)
        return np.maximum(layer.cover() * self.bite, self.crumbs)

    def _scores(self) -> Array:
        layer = Stencil(self.view)
        for k, (cx, cy) in enumerate(self.lie):
            if k not in self.gone:
                a, b = 24 * np.cos(self.score[k]), 24 * np.sin(self.score[k])
                layer.line([(cx - a, cy - b), (cx + a, cy + b)], 3.0)
        return layer.cover()

    def photograph(self) -> Array:
        view = self.view
        u, v = view.uv
        half_w, half_h, corner = CARD
        card = view.inside(
            np.hypot(np.maximum(np.abs(u) - half_w + corner, 0), np.maximum(np.abs(v) - half_h + corner, 0)) - corner
        )
        ground = (np.float32(0.30) + self.ground) * (1 - np.float32(0.6) * shadow(card, view, 8.0, 6.0))
        picture = shade((0.75, 0.9, 1.1), ground)

        # Six equal pockets: fold the plane so that one distance serves them all.
        fold_u = u - np.where(u < 0, np.float32(-50), np.float32(50))
        fold_v = v - np.clip(np.round(v / 93), -1, 1) * 93
        rho = np.hypot(fold_u, fold_v)
        pocket = view.inside(rho - POCKET)
        knurl = np.sin((u + v) * np.float32(2 * np.pi / 8)) * np.sin((u - v) * np.float32(2 * np.pi / 8))
        foil: Array = np.float32(0.74) + np.float32(0.06) * knurl * (1 - np.float32(0.8) * pocket)
        foil += np.float32(0.018) * self.crinkle - np.float32(0.0006) * (view.x + view.y)
        foil += np.float32(0.16) * glint(view, -20, -60, 60, 150, 0.5)
        # The floor of a pocket is a shallow bowl: its far side takes the light, its near side lies in shade.
        slope = (fold_u * np.float32(0.6) + fold_v * np.float32(0.8)) / POCKET
        floor = np.float32(0.60) + np.float32(0.012) * self.crinkle + np.float32(0.22) * slope
        floor += np.float32(0.10) * np.exp(-((rho / np.float32(16)) ** 2))
        foil = foil * (1 - pocket) + floor * pocket
        height = soften(card, view, 1.0) + soften(view.inside(rho - POCKET - 3), view, 1.5)
        foil = foil + bevel(height, 0.9)

        tablets = self.tablets()
        fall = shadow(tablets, view, 5.0, 3.5) * pocket * (1 - tablets)
        foil = foil * (1 - np.float32(0.55) * fall)
        picture = blend(picture, shade((0.97, 0.99, 1.03), foil), card)
        swell = soften(tablets, view, 3.0)
        body = np.float32(0.80) + np.float32(0.22) * swell + bevel(swell, 1.9)
        body = body + np.float32(0.018) * self.powder - np.float32(0.5) * bevel(self._scores(), 0.9)
        body = body - np.float32(0.12) * self._scores()
        picture = blend(picture, shade(COATING, body), tablets)

        # The clear dome: dark where it refracts at its foot, bright where it mirrors the lamp.
        foot = np.exp(-(((rho - POCKET + 2.5) / np.float32(2.0)) ** 2))
        picture = picture * (1 - np.float32(0.30) * foot)
        side = np.cos(np.arctan2(fold_v, fold_u) + np.float32(2.2))
        gloss = np.exp(-(((rho - 34) / np.float32(2.2)) ** 2)) * np.square(np.square(np.clip(side, 0, 1)))
        echo = np.exp(-(((rho - 36) / np.float32(1.6)) ** 2)) * np.square(np.square(np.clip(-side, 0, 1)))
        picture += np.float32(0.42) * gloss + np.float32(0.20) * echo
        return picture

    def missing_tablet(self, picture: Array, rng: np.random.Generator) -> Array:
        self.gone = {int(rng.integers(6))}
        flawed = self.photograph()
        self.gone = set()
        return flawed

    def broken_tablet(self, picture: Array, rng: np.random.Generator) -> Array:
        """A piece off one tablet, a few crumbs of it left in the pocket."""
        cx, cy = self.lie[int(rng.integers(6))]
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(11.0, 22.0)
        centre = (cx + TABLET * np.cos(angle), cy + TABLET * np.sin(angle))
        u, v = self.view.uv
        here = self.view.inside(np.hypot(u - np.float32(cx), v - np.float32(cy)) - TABLET - 2)
        self.bite = 1 - self.view.inside(blob(self.view, rng, centre, radius, 0.16)) * here
        crumbs = Stencil(self.view)
        for _ in range(int(rng.integers(2, 6))):
            a, r = angle + rng.uniform(-0.5, 0.5), rng.uniform(TABLET - 4, TABLET + 6)
            crumbs.disc(cx + r * np.cos(a), cy + r * np.sin(a), rng.uniform(0.8, 2.2))
        self.crumbs = crumbs.cover()
        flawed = self.photograph()
        self.bite, self.crumbs = np.ones_like(self.powder), np.zeros_like(self.powder)
        return flawed

    def contamination(self, picture: Array, rng: np.random.Generator) -> Array:
        """A dark stain in a tablet's coating, or a hair lying on the pack."""
        cx, cy = self.lie[int(rng.integers(6))]
        if rng.random() < 0.35:
            path = wander(rng, (cx + rng.uniform(-30, 0), cy), rng.uniform(-1, 1), rng.uniform(50, 90), 0.16)
            hair = Stencil(self.view).line(path, rng.uniform(1.3, 2.0)).cover()
            return blend(picture, (0.12, 0.08, 0.06), np.float32(rng.uniform(0.7, 0.95)) * hair)
        radius = rng.uniform(4.5, 13.0)
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0, TABLET - radius)
        edge = blob(self.view, rng, (cx + away * np.cos(angle), cy + away * np.sin(angle)), radius, 0.25)
        alpha = np.clip(-edge / 4 + np.float32(0.5), 0, 1) * np.float32(rng.uniform(0.3, 0.85))
        colour = ((0.30, 0.16, 0.08), (0.20, 0.26, 0.20), (0.62, 0.30, 0.10))[int(rng.integers(3))]
        return blend(picture, colour, alpha)


TabletBlister.flaws = {
    "broken_tablet": TabletBlister.broken_tablet,
    "contamination": TabletBlister.contamination,
    "missing_tablet": TabletBlister.missing_tablet,
}
