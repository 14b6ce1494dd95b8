"""A plain-woven textile which fills the picture."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jobs.demo.flaws import blob, wander
from jobs.demo.part import Flaw, Part
from jobs.demo.scene import Array, Stencil, View, blend, clouds, grain, shade

PITCH = 10.0
"""Distance of neighbouring threads, warp and weft alike."""
THREADS = 64
WARP, WEFT = (0.27, 0.36, 0.56), (0.62, 0.66, 0.72)
BELOW = (0.05, 0.05, 0.07)


class WovenFabric(Part):
    """Blue warp over and under pale weft; every thread a little lighter or darker than the next."""

    category = "woven_fabric"
    flaws: ClassVar[dict[str, Flaw]]

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.warp_tone = rng.normal(0.0, 0.025, THREADS).astype(np.float32)
        self.weft_tone = rng.normal(0.0, 0.025, THREADS).astype(np.float32)
        # No loom beats up evenly: threads bend off their straight line by a fraction of the pitch.
        self.bend_u = np.float32(0.3) * clouds(rng, view, 50.0)
        self.bend_v = np.float32(0.3) * clouds(rng, view, 50.0)
        self.fuzz = grain(rng, view)
        self.drape = clouds(rng, view, 110.0)
        self.weft_left = np.ones_like(self.fuzz)

    def _cells(self) -> tuple[Array, Array]:
        u, v = self.view.uv
        return (u + self.bend_u) / np.float32(PITCH) + 32, (v + self.bend_v) / np.float32(PITCH) + 32

    def photograph(self) -> Array:
        a, b = self._cells()
        column, row = np.floor(a), np.floor(b)
        s, t = a - column - np.float32(0.5), b - row - np.float32(0.5)
        i, j = column.astype(np.int32), row.astype(np.int32)
        over = np.where((i + j) % 2 == 0, np.float32(1), np.float32(-1))
        lift_warp, lift_weft = over * np.cos(np.pi * t), -over * np.cos(np.pi * s)
        round_warp, round_weft = np.sqrt(1 - (1.9 * s) ** 2), np.sqrt(1 - (1.9 * t) ** 2)
        height_warp = round_warp + np.float32(0.7) * lift_warp
        height_weft = (round_weft + np.float32(0.7) * lift_weft + 2) * self.weft_left - 2
        on_top = np.clip((height_warp - height_weft) * 3 + np.float32(0.5), 0, 1)

        # The yarn's twist shows as slanted ribs.
        twist_warp = np.sin(2 * np.pi * (b * np.float32(2.5) + a))
        twist_weft = np.sin(2 * np.pi * (a * np.float32(2.5) + b))
        light_warp = np.float32(0.38) + np.float32(0.42) * round_warp + np.float32(0.17) * lift_warp
        light_warp += np.float32(-0.28) * s + np.float32(0.06) * twist_warp + self.warp_tone[i % THREADS]
        light_weft = np.float32(0.38) + np.float32(0.42) * round_weft + np.float32(0.17) * lift_weft
        light_weft += np.float32(-0.36) * t + np.float32(0.06) * twist_weft + self.weft_tone[j % THREADS]
        picture = blend(shade(WEFT, light_weft), shade(WARP, light_warp), on_top)
        # Between the threads one looks through: nowhere in whole cloth, but where a weft is gone.
        gap = np.clip((np.float32(0.55) - round_warp) * 4, 0, 1) * (1 - self.weft_left)
        picture = blend(picture, BELOW, np.float32(0.9) * gap)
        light = 1 + np.float32(0.035) * self.fuzz + np.float32(0.012) * self.drape
        return picture * (np.float32(1.12) * light)

    def _fibres(self, picture: Array, rng: np.random.Generator, roots: list[tuple[float, float, float]]) -> Array:
        layer = Stencil(self.view)
        for x, y, heading in roots:
            for _ in range(int(rng.integers(3, 7))):
                turn = heading + rng.normal(0, 0.5)
                layer.line(wander(rng, (x, y + rng.uniform(-3, 3)), turn, rng.uniform(5, 13), 0.2), 0.9)
        return blend(picture, (0.78, 0.80, 0.84), np.float32(0.85) * layer.cover())

    def cut_thread(self, picture: Array, rng: np.random.Generator) -> Array:
        """One or two weft threads parted, their ends frayed."""
        view = self.view
        u, _ = view.uv
        _, b = self._cells()
        row, count = int(rng.integers(20, 43)), int(rng.choice([1, 1, 2]))
        left, length = rng.uniform(-120, 60), rng.uniform(22.0, 60.0)
        along = view.inside(np.abs(u - np.float32(left + length / 2)) - np.float32(length / 2), 3)
        across = ((b >= row) & (b < row + count)).astype(np.float32)
        self.weft_left = 1 - along * across
        flawed = self.photograph()
        self.weft_left = np.ones_like(self.fuzz)
        ends = [
            (x, (row + k + 0.5 - 32) * PITCH, heading)
            for k in range(count)
            for x, heading in ((left, 0.0), (left + length, np.pi))
        ]
        return self._fibres(flawed, rng, ends)

    def hole(self, picture: Array, rng: np.random.Generator) -> Array:
        cx, cy = rng.uniform(-115, 115, 2)
        radius = rng.uniform(6.0, 15.0)
        edge = blob(self.view, rng, (cx, cy), radius, 0.25)
        rim = np.exp(-((edge / np.float32(5)) ** 2))
        flawed = picture * (1 - np.float32(0.35) * rim * (np.abs(edge) < 9))
        flawed = blend(flawed, BELOW, self.view.inside(edge, 1.0))
        roots = [
            (cx + radius * np.cos(a), cy + radius * np.sin(a), a + np.pi)
            for a in rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7)))
        ]
        return self._fibres(flawed, rng, roots)

    def stain(self, picture: Array, rng: np.random.Generator) -> Array:
        """Oil: the cloth shows through, browner and darker, most of all at the stain's rim."""
        cx, cy = rng.uniform(-110, 110, 2)
        radius = rng.uniform(9.0, 26.0)
        edge = blob(self.view, rng, (cx, cy), radius, 0.22)
        wet = np.clip(-edge / 5 + np.float32(0.5), 0, 1)
        rim = np.exp(-(((edge + 3) / np.float32(3)) ** 2))
        alpha = np.float32(rng.uniform(0.4, 0.9)) * np.clip(wet * np.float32(0.8) + rim * 0.25, 0, 1)
        return picture * (1 - shade((0.42, 0.58, 0.80), alpha))


WovenFabric.flaws = {
    "cut_thread": WovenFabric.cut_thread,
    "hole": WovenFabric.hole,
    "stain": WovenFabric.stain,
}
