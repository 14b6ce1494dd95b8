"""The demo line's products: `draw` photographs a good or a defective part and masks the defect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from jobs.demo.part import Part
from jobs.demo.products.bottle_cap import BottleCap
from jobs.demo.products.ceramic_tile import CeramicTile
from jobs.demo.products.circuit_board import CircuitBoard
from jobs.demo.products.gear import Gear
from jobs.demo.products.tablet_blister import TabletBlister
from jobs.demo.products.woven_fabric import WovenFabric
from jobs.demo.scene import Array, Exposure, View

PARTS: dict[str, type[Part]] = {
    part.category: part for part in (BottleCap, CeramicTile, CircuitBoard, Gear, TabletBlister, WovenFabric)
}
CATEGORIES: tuple[str, ...] = tuple(sorted(PARTS))
DEFECTS: dict[str, tuple[str, ...]] = {name: tuple(sorted(PARTS[name].flaws)) for name in CATEGORIES}

SMALLEST, LARGEST = 0.0005, 0.12
"""Share of the picture a defect covers, at least and at most."""
_VISIBLE = 0.03
_FEATHER = 3
_TRIES = 20


@dataclass(frozen=True)
class Drawing:
    """A photograph (uint8 RGB) and the mask of its defect (bool, all False for a good part)."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def draw(category: str, rng: np.random.Generator, defect: str | None = None, size: int = 320) -> Drawing:
    """Photograph one part; with a defect, the picture differs from the good one only about the mask.

    The rng gives four seeds whether or not there is a defect, so two generators in the same state give
    the same part, pose and noise.
    """
    if category not in PARTS:
        raise ValueError(f"unknown category {category!r}: one of {', '.join(CATEGORIES)}")
    if defect is not None and defect not in DEFECTS[category]:
        raise ValueError(f"unknown defect {defect!r} of {category}: one of {', '.join(DEFECTS[category])}")
    pose, piece, sensor, flaw = (np.random.default_rng(seed) for seed in rng.integers(0, 2**63, 4))
    view = View.jittered(size, pose)
    part = PARTS[category](view, piece)
    exposure = Exposure.drawn(view, sensor)
    picture = part.photograph()
    image = exposure.expose(view, picture)
    if defect is None:
        return Drawing(image, np.zeros((size, size), dtype=np.bool_))
    for _ in range(_TRIES):
        flawed = part.flaws[defect](part, picture, flaw)
        mask = _changed(picture, flawed)
        # A scratch that left the part, or a faint patch on its own colour, is drawn again.
        if SMALLEST <= mask.mean() <= LARGEST:
            break
    else:
        raise RuntimeError(f"no visible {defect} on {category} in {_TRIES} tries")
    about = ndimage.binary_dilation(mask, iterations=_FEATHER)
    return Drawing(np.where(about[..., None], exposure.expose(view, flawed), image), mask)


def _changed(good: Array, flawed: Array) -> NDArray[np.bool_]:
    """Where the eye sees a difference: closed and filled as a person would outline it, less lone pixels."""
    seen = np.abs(np.clip(flawed, 0, 1) - np.clip(good, 0, 1)).max(axis=0) > _VISIBLE
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(seen, 4), iterations=2))[4:-4, 4:-4]
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count == 0:
        return np.asarray(mask, dtype=np.bool_)
    areas = np.bincount(labels.ravel())
    keep = areas >= 6
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)
