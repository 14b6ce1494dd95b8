"""A populated printed circuit board, close up."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jobs.demo.flaws import scratch, wander
from jobs.demo.part import Flaw, Part
from jobs.demo.products.board_layout import (
    CAN,
    CHIPS,
    HEADER,
    LABELS,
    PASSIVES,
    TRACES,
    VIAS,
    Chip,
    legs,
)
from jobs.demo.scene import (
    SPAN,
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

MASK, COPPER_UNDER, GOLD = (0.05, 0.33, 0.16), (0.10, 0.45, 0.22), (0.86, 0.68, 0.33)
TIN, MOULD, WHITE = (0.80, 0.81, 0.82), (0.11, 0.11, 0.12), (0.90, 0.92, 0.88)


@lru_cache(maxsize=4)
def _legend(size: int) -> Image.Image:
    """The silkscreen print, straight and centred; a photograph turns it into place."""
    sheet = Image.new("L", (size * 2, size * 2), 0)
    pen, f = ImageDraw.Draw(sheet), 2 * size / SPAN

    def at(*values: float) -> list[float]:
        return [(value + SPAN / 2) * f for value in values]

    for passive in PASSIVES:
        w, h = (24, 14) if passive.across else (14, 24)
        box = at(passive.x - w / 2, passive.y - h / 2, passive.x + w / 2, passive.y + h / 2)
        pen.rectangle(box, outline=190, width=round(1.1 * f))
    for chip in CHIPS:
        dot = at(chip.x - chip.w / 2 - 12, chip.y - chip.h / 2 - 12)
        pen.ellipse((dot[0], dot[1], dot[0] + 5 * f, dot[1] + 5 * f), fill=235)
    x, y, r = CAN
    pen.ellipse(at(x - r - 4, y - r - 4, x + r + 4, y + r + 4), outline=215, width=round(1.4 * f))
    for text, tx, ty, high in LABELS:
        px, py = at(tx, ty)
        pen.text((px, py), text, fill=235, font=ImageFont.load_default(high * f), anchor="mm")
    return sheet


class CircuitBoard(Part):
    """Green board with two chips, a row of passives, a capacitor can, vias and a pin header."""

    category = "circuit_board"
    flaws: ClassVar[dict[str, Flaw]]

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.weave = 0.02 * clouds(rng, view, 7.0) + 0.02 * grain(rng, view)
        self.dull = grain(rng, view)
        # Pick-and-place puts a part down to about half a pixel.
        self.shift = rng.normal(0.0, 0.4, (len(PASSIVES), 2)).clip(-1, 1)
        self.tone = rng.normal(0.0, 0.05, len(PASSIVES))
        self.paste = 1 + rng.normal(0.0, 0.05, len(PASSIVES))
        self.gone: set[int] = set()

    def _printed(self) -> Array:
        """The legend turned and shifted as the board lies."""
        view, n = self.view, self.view.size
        c, s = np.cos(view.angle), np.sin(view.angle)
        mid, dx, dy = n / 2, view.dx / view.pixel, view.dy / view.pixel
        back = (c, s, mid - c * (mid + dx) - s * (mid + dy), -s, c, mid + s * (mid + dx) - c * (mid + dy))
        matrix = tuple(2 * value for value in back)
        turned = _legend(n).transform((n, n), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return np.asarray(turned, dtype=np.float32) / np.float32(255)

    def _copper(self) -> tuple[Array, Array]:
        """Coverage of the tracks under the green lacquer, and of the bare gold pads and rings."""
        under, bare = Stencil(self.view), Stencil(self.view)
        for path, width in TRACES:
            under.line(path, width)
        for x, y in VIAS:
            under.disc(x, y, 6.0)
            bare.disc(x, y, 4.2)
        for x, y in HEADER:
            bare.disc(x, y, 8.5)
        for passive in PASSIVES:
            for x, y in passive.ends():
                bare.rectangle(x, y, *((8.0, 10.0) if passive.across else (10.0, 8.0)))
        for chip in CHIPS:
            for x, y, across in legs(chip):
                bare.rectangle(x, y, *((12.0, 5.0) if across else (5.0, 12.0)))
        return under.cover(), bare.cover()

    def _solder(self) -> Array:
        layer = Stencil(self.view)
        for k, passive in enumerate(PASSIVES):
            if k not in self.gone:
                for x, y in passive.ends():
                    layer.disc(x, y, 4.6 * self.paste[k])
        for x, y in HEADER:
            layer.disc(x, y, 6.8)
        return layer.cover()

    def _bodies(self) -> tuple[Array, Array, Array]:
        """Coverage of moulded chips, of passives, and the passives' own colour value."""
        mould, small, tone = Stencil(self.view), Stencil(self.view), Stencil(self.view)
        for chip in CHIPS:
            mould.rectangle(chip.x, chip.y, chip.w, chip.h)
        for k, passive in enumerate(PASSIVES):
            if k in self.gone:
                continue
            x, y = passive.x + self.shift[k, 0], passive.y + self.shift[k, 1]
            w, h = (17.0, 9.0) if passive.across else (9.0, 17.0)
            small.rectangle(x, y, w, h)
            core = (w - 6, h) if passive.across else (w, h - 6)
            tone.rectangle(x, y, *core, value=float(np.clip(passive.tone + self.tone[k], 0.02, 1)))
        return mould.cover(), small.cover(), tone.cover()

    def photograph(self) -> Array:
        view = self.view
        under, bare = self._copper()
        mould, small, tone = self._bodies()
        x, y, radius = CAN
        u, v = view.uv
        rho = np.hypot(u - np.float32(x), v - np.float32(y))
        can = view.inside(rho - radius)
        picture = blend(shade(MASK, 1 + self.weave), COPPER_UNDER, np.float32(0.85) * under)
        relief = np.float32(0.10) * bevel(soften(under, view, 0.7), 1.6)
        picture = picture + (relief + np.float32(0.06) * glint(view, -70, -90, 120, 60, -0.5))
        picture = blend(picture, WHITE, np.float32(0.9) * self._printed() * (1 - bare))
        shine = 1 + bevel(soften(bare, view, 0.8), 0.5) + np.float32(0.04) * self.dull
        picture = blend(picture, shade(GOLD, shine), bare)
        high = np.maximum(np.maximum(mould, small), can)
        picture *= 1 - np.float32(0.55) * shadow(high, view, 5.0, 2.6) * (1 - high)

        solder = self._solder()
        dome = soften(solder, view, 1.8)
        picture = blend(picture, shade(TIN, np.float32(0.62) + bevel(dome, 2.6) + 0.25 * dome * dome), solder)
        pins = Stencil(view)
        for chip in CHIPS:
            for px, py, across in legs(chip):
                pins.rectangle(px, py, *((11.0, 3.6) if across else (3.6, 11.0)))
        pin = pins.cover() * (1 - mould)
        picture = blend(picture, shade(TIN, np.float32(0.80) + bevel(soften(pin, view, 0.7), 1.2)), pin)

        edges = bevel(soften(small, view, 0.9), 1.2)
        picture = blend(picture, shade(TIN, np.float32(0.85) + edges), small)
        core = np.clip(tone * 40, 0, 1)
        ceramic = shade((1.0, 0.80, 0.58), tone / np.maximum(core, np.float32(0.02)))
        picture = blend(picture, ceramic + np.float32(0.5) * edges, core)
        black = shade(MOULD, 1 + np.float32(0.10) * self.dull)
        black = black + bevel(soften(mould, view, 1.2), 0.8) + 0.10 * glint(view, -80, -80, 60, 40)
        picture = blend(picture, black, mould)
        picture = blend(picture, (0.55, 0.56, 0.56), np.float32(0.75) * self._engraved())

        top = np.float32(0.72) + bevel(soften(can, view, 2.0), 2.0) + np.float32(0.02) * self.dull
        top = top + np.float32(0.10) * np.cos(2 * np.arctan2(v - np.float32(y), u - np.float32(x)) - 1)
        top = top * (1 - np.float32(0.75) * view.inside(u - np.float32(x - 0.45 * radius)))
        top = top - np.float32(0.2) * np.exp(-(((rho - radius + 5) / np.float32(1.2)) ** 2))
        return blend(picture, shade((0.97, 0.98, 1.0), top), can)

    def _engraved(self) -> Array:
        """Maker's marks on the chips: bars, which read as print at this distance."""
        layer = Stencil(self.view)
        for chip in CHIPS:
            for k, share in enumerate((0.55, 0.4, 0.48)):
                wide = chip.w * share
                left = chip.x - 0.36 * chip.w
                for n in range(int(wide // 5)):
                    if (n * 7 + k * 3) % 5:
                        layer.rectangle(left + 5 * n + 2, chip.y - 10 + 10 * k, 3.2, 5.0)
            layer.disc(chip.x - chip.w / 2 + 8, chip.y - chip.h / 2 + 8, 3.0, 0.5)
        return layer.cover()

    def missing_component(self, picture: Array, rng: np.random.Generator) -> Array:
        self.gone = {int(rng.integers(len(PASSIVES)))}
        flawed = self.photograph()
        self.gone = set()
        return flawed

    def solder_bridge(self, picture: Array, rng: np.random.Generator) -> Array:
        """Tin run together between neighbouring pins."""
        chip: Chip = CHIPS[int(rng.integers(len(CHIPS)))]
        pins = legs(chip)
        first = int(rng.integers(len(pins)))
        same = [p for p in pins if p[2] == pins[first][2] and p != pins[first]]
        x, y, across = pins[first]
        nx, ny, _ = min(same, key=lambda p: (p[0] - x) ** 2 + (p[1] - y) ** 2)
        layer = Stencil(self.view)
        out = rng.uniform(0.0, 4.0)
        for k in np.linspace(-0.15, 1.15, 7):
            px, py = x + k * (nx - x), y + k * (ny - y)
            away = out * np.sign((px - chip.x) if across else (py - chip.y))
            layer.disc(px + away * across, py + away * (not across), rng.uniform(3.6, 6.2))
        blobs = layer.cover()
        dome = soften(blobs, self.view, 1.6)
        tin = shade(TIN, np.float32(0.60) + bevel(dome, 2.4) + np.float32(0.3) * dome * dome)
        return blend(picture, tin, blobs)

    def scratch(self, picture: Array, rng: np.random.Generator) -> Array:
        """Through the lacquer into the copper."""
        start = (float(rng.uniform(-110, 110)), float(rng.uniform(-110, 110)))
        if rng.random() < 0.3:
            # A lone slip of the screwdriver: wide and short.
            path = wander(rng, start, rng.uniform(0, 2 * np.pi), rng.uniform(20, 35), 0.1)
            stroke = Stencil(self.view).line(path, rng.uniform(2.5, 4.0)).cover()
            return blend(picture, (0.88, 0.66, 0.42), np.float32(rng.uniform(0.6, 0.95)) * stroke)
        colours = ((0.90, 0.74, 0.52), (0.02, 0.12, 0.06))
        return scratch(self.view, picture, rng, start, rng.uniform(30, 80), colours, rng.uniform(0.5, 0.95))


CircuitBoard.flaws = {
    "missing_component": CircuitBoard.missing_component,
    "scratch": CircuitBoard.scratch,
    "solder_bridge": CircuitBoard.solder_bridge,
}
