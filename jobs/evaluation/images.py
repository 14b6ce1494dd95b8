"""Test images with their truth: found in MVTec AD's layout, their masks beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomaly_core.preprocess import SIZE
from jobs.listing import listing
from jobs.storage import read_bytes
from manifests.build import is_image_name

GOOD = "good"


class EvaluationError(Exception):
    """An evaluation that cannot be done as asked; the message names the thing and the remedy."""


@dataclass(frozen=True)
class TestImage:
    """One test image. defect: its kind, or ``good``; path: relative to the folder that was searched; mask: URI of the
    picture of its defect, if there is one."""

    category: str
    defect: str
    path: str
    uri: str
    mask: str | None

    @property
    def defective(self) -> bool:
        """Whether the part is defective."""
        return self.defect != GOOD


def find_test_images(uri: str, categories: Sequence[str] = ()) -> tuple[list[TestImage], list[str]]:
    """``<category>/test/<defect>/*`` below a folder or prefix, with ``<category>/ground_truth/<defect>/<stem>_mask.*``.

    Sorted by path. With them the paths of images that are below a folder ``test`` and not in this layout.

    Raises EvaluationError if there are none, or none of a category that was asked for, and for a folder of defects
    whose name differs from ``good`` only by case.
    """
    tests: list[tuple[str, str, str, str]] = []
    masks: dict[tuple[str, str, str], str] = {}
    astray: list[str] = []
    for entry in listing(uri):
        *folders, name = entry.relative_path.split("/")
        if not is_image_name(name):
            continue
        category, part, defect = folders if len(folders) == 3 else ("", "", "")
        if part == "test":
            tests.append((category, defect, entry.relative_path, entry.uri))
        elif part == "ground_truth":
            if defect != GOOD:  # some data sets have masks of good parts: nothing is in them
                masks[category, defect, name.rpartition(".")[0].removesuffix("_mask")] = entry.uri
        elif "test" in (folder.lower() for folder in folders[1:]) and (not categories or folders[0] in categories):
            astray.append(entry.relative_path)
    if not tests:
        raise EvaluationError(f"{uri}: no images at <category>/test/<defect>/ (the layout of MVTec AD)")
    present = sorted({category for category, *_ in tests})
    missing = sorted(set(categories) - set(present))
    if missing:
        raise EvaluationError(f"{uri}: no test images for {', '.join(missing)}; there are {', '.join(present)}")
    found = []
    for category, defect, path, where in sorted(tests, key=lambda test: test[2]):
        if not categories or category in categories:
            if defect != GOOD and defect.lower() == GOOD:
                raise EvaluationError(
                    f"{uri}: are the parts in {category}/test/{defect} good or defective? Name the folder {GOOD}, or "
                    "as the defect that it shows"
                )
            stem = path.rpartition("/")[2].rpartition(".")[0]
            found.append(TestImage(category, defect, path, where, masks.get((category, defect, stem))))
    return found, astray


def read_mask(uri: str) -> npt.NDArray[np.bool_]:
    """A mask at the size of the models' input, bool (224, 224), nearest pixel. Raises EvaluationError naming the file.

    Any value above 0 is defect. Where the nearest pixels miss a thin defect whole, a pixel is defect if any of it was.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(uri))) as picture:
            seen = picture.convert("RGBA" if picture.has_transparency_data else "L")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise EvaluationError(f"{uri}: not a mask that can be read ({error})") from error
    if "A" in seen.getbands() and seen.getchannel("A").getextrema() != (255, 255):
        # What is defect might be in the colours or in the transparency.
        raise EvaluationError(f"{uri}: the mask is transparent in part; save it opaque, the defect white on black")
    full = seen.convert("L")
    small = np.asarray(full.resize((SIZE, SIZE), Image.Resampling.NEAREST)) > 0
    return small if small.any() else _covered(np.asarray(full) > 0)


def _covered(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Bool (224, 224): whether any of a pixel is defect in a mask of another size, (height, width)."""
    for _ in range(2):  # rows, then columns
        ends = [(i * len(mask) // SIZE, -(-(i + 1) * len(mask) // SIZE)) for i in range(SIZE)]
        mask = np.stack([mask[start:end].any(axis=0) for start, end in ends], axis=1)
    return mask
