"""Test images with their truth: found in MVTec AD's layout, their masks beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomaly_core.preprocess import SIZE
from jobs.storage import listing, read_bytes
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


def find_test_images(uri: str, categories: Sequence[str] = ()) -> list[TestImage]:
    """``<category>/test/<defect>/*`` below a folder or prefix, with ``<category>/ground_truth/<defect>/<stem>_mask.*``.

    Sorted by path. Raises EvaluationError if there are none, or none of a category that was asked for.
    """
    tests: list[tuple[str, str, str, str]] = []
    masks: dict[tuple[str, str, str], str] = {}
    for entry in listing(uri):
        parts = entry.relative_path.split("/")
        if len(parts) != 4 or not is_image_name(parts[3]):
            continue
        category, part, defect, name = parts
        stem = name.rpartition(".")[0]
        if part == "test":
            tests.append((category, defect, entry.relative_path, entry.uri))
        elif part == "ground_truth":
            masks[category, defect, stem.removesuffix("_mask")] = entry.uri
    if not tests:
        raise EvaluationError(f"{uri}: no images at <category>/test/<defect>/ (the layout of MVTec AD)")
    present = sorted({category for category, *_ in tests})
    missing = sorted(set(categories) - set(present))
    if missing:
        raise EvaluationError(f"{uri}: no test images for {', '.join(missing)}; there are {', '.join(present)}")
    found = []
    for category, defect, path, where in sorted(tests, key=lambda test: test[2]):
        if not categories or category in categories:
            stem = path.rpartition("/")[2].rpartition(".")[0]
            found.append(TestImage(category, defect, path, where, masks.get((category, defect, stem))))
    return found


def read_mask(uri: str) -> npt.NDArray[np.bool_]:
    """A mask at the size of the models' input, bool (224, 224), nearest pixel. Raises EvaluationError naming the file.

    Any value above 0 is defect.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(uri))) as picture:
            small = picture.convert("L").resize((SIZE, SIZE), Image.Resampling.NEAREST)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise EvaluationError(f"{uri}: not a mask that can be read ({error})") from error
    return np.asarray(small) > 0
