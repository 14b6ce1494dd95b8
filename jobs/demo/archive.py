"""One night of the demo line on disk: training images, the archive to audit, and what is true of it."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.demo.broken import BROKEN, jpeg, png
from jobs.demo.products import CATEGORIES, DEFECTS, draw

LINES = ("L1", "L2", "L3")
CAMERAS = ("c1", "c2")
SHIFT_START = datetime(2026, 3, 14, 21, 58, 20)
SHIFT = timedelta(hours=8)
"""A night shift: it crosses midnight, so the archive has folders of two days."""
_PNG_EVERY = 4
"""One image in four is a PNG, in training as in the archive: the format must not tell good from bad."""
COLUMNS = ("path", "category", "defect", "broken")


@dataclass(frozen=True)
class Truth:
    """What is true of one archived file.

    `path` is relative to the root; `defect` is empty for a good part; `broken` is the kind of damage of a
    file that cannot be read, and then category and defect are empty.
    """

    path: str
    category: str
    defect: str
    broken: str

    @property
    def mask(self) -> str | None:
        """The defect mask's path relative to the root, None where there is no defect."""
        return posixpath.join("masks", self.path + ".png") if self.defect else None


@dataclass(frozen=True)
class Archive:
    """What `make_archive` wrote. `counts` has training, archive, good, defective and broken."""

    root: Path
    counts: Mapping[str, int]
    truth: tuple[Truth, ...]
    wrong_extension: str | None
    """Path of the good PNG named .jpg, None without broken files."""


@dataclass(frozen=True)
class _Shot:
    """One file of the night before it is drawn."""

    category: str
    defect: str = ""
    broken: str = ""
    disguised: bool = False


def make_archive(
    root: Path, *, seed: int = 0, train: int = 24, good: int = 12, per_defect: int = 3, broken: bool = True
) -> Archive:
    """Write training images, the night's archive, masks and truth.csv under `root`.

    `train` and `good` count images per category, `per_defect` images per category and defect. With
    `broken`, seven unreadable files lie among them and one good PNG bears the extension .jpg. The same
    arguments give the same bytes.
    """
    for name, value in (("train", train), ("good", good), ("per_defect", per_defect)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, not {value}")
    training = _write_training(root, seed, train)
    shots = _shots(good, per_defect, broken)
    order = np.random.default_rng((seed, 1)).permutation(len(shots))
    places = _places(len(shots), np.random.default_rng((seed, 2)))
    truth: list[Truth] = []
    wrong: str | None = None
    for index, place in zip(order, places, strict=True):
        shot = shots[index]
        truth.append(_write_shot(root, shot, place, np.random.default_rng((seed, 3, int(index)))))
        wrong = truth[-1].path if shot.disguised else wrong
    truth.sort(key=lambda row: row.path)
    _write(root / "truth.csv", _csv(truth))
    counts = {
        "training": training,
        "archive": len(truth),
        "good": sum(not row.defect and not row.broken for row in truth),
        "defective": sum(bool(row.defect) for row in truth),
        "broken": sum(bool(row.broken) for row in truth),
    }
    return Archive(root, counts, tuple(truth), wrong)


def _write_training(root: Path, seed: int, train: int) -> int:
    """MVTec AD layout: training/<category>/train/good/NNN.<ext>."""
    for c, category in enumerate(CATEGORIES):
        for n in range(train):
            image = draw(category, np.random.default_rng((seed, 0, c, n))).image
            lossless = n % _PNG_EVERY == 0
            name = f"{n:03d}.{'png' if lossless else 'jpg'}"
            data = png(image) if lossless else jpeg(image)
            _write(root / "training" / category / "train" / "good" / name, data)
    return train * len(CATEGORIES)


def _shots(good: int, per_defect: int, broken: bool) -> list[_Shot]:
    """Everything the night will hold, in no order yet."""
    shots = [_Shot(category) for category in CATEGORIES for _ in range(good)]
    if broken and shots:
        shots[0] = _Shot(shots[0].category, disguised=True)
    for category in CATEGORIES:
        shots += [_Shot(category, defect) for defect in DEFECTS[category] for _ in range(per_defect)]
    if broken:
        shots += [_Shot(CATEGORIES[n % len(CATEGORIES)], broken=kind) for n, kind in enumerate(sorted(BROKEN))]
    return shots


def _places(count: int, rng: np.random.Generator) -> list[str]:
    """Paths without extension, in the order of the night: line, camera and time, not what is seen."""
    gaps = rng.uniform(0.5, 1.5, count + 1)
    seconds = np.floor(np.cumsum(gaps)[:count] / gaps.sum() * SHIFT.total_seconds())
    serials = 41_000 + np.cumsum(rng.integers(1, 9, count))
    places = []
    for second, serial in zip(seconds, serials, strict=True):
        at = SHIFT_START + timedelta(seconds=int(second))
        line, camera = LINES[int(rng.integers(len(LINES)))], CAMERAS[int(rng.integers(len(CAMERAS)))]
        places.append(f"archive/{line}/{camera}/{at:%Y-%m-%d}/{at:%H%M%S}_{int(serial):06d}")
    return places


def _write_shot(root: Path, shot: _Shot, place: str, rng: np.random.Generator) -> Truth:
    lossless = bool(rng.integers(_PNG_EVERY) == 0)
    drawing = draw(shot.category, rng, shot.defect or None)
    if shot.broken:
        extension, maker = BROKEN[shot.broken]
        data = maker(drawing.image, rng)
    elif shot.disguised:
        extension, data = "jpg", png(drawing.image)
    else:
        extension, data = ("png", png(drawing.image)) if lossless else ("jpg", jpeg(drawing.image))
    # Of a file that does not open nothing can be said, so its category stays empty.
    row = Truth(f"{place}.{extension}", "" if shot.broken else shot.category, shot.defect, shot.broken)
    _write(root / row.path, data)
    if row.mask is not None:
        _write(root / row.mask, _mask_png(drawing.mask))
    return row


def _mask_png(mask: NDArray[np.bool_]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(out, format="PNG")
    return out.getvalue()


def _csv(truth: list[Truth]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((row.path, row.category, row.defect, row.broken) for row in truth)
    return text.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
