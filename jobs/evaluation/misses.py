"""The worst misses, as pictures: escapes that scored lowest, false rejects that scored highest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from anomaly_core.heatmap import overlay, png, relative_map
from anomaly_core.preprocess import SIZE, Preprocessing
from jobs.evaluation.images import read_mask
from jobs.evaluation.judge import Judged, decode_test_image

OUTLINE = (0, 200, 255)
OVERLAYS = "overlays"
Kind = Literal["escape", "false_reject"]


@dataclass(frozen=True)
class Miss:
    """One image that its own category's autoencoder gets wrong. file: name of its overlay; margin: score / T."""

    judged: Judged
    kind: Kind
    margin: float
    file: str


def worst_misses(judged: Sequence[Judged], thresholds: Mapping[str, float], most: int) -> list[Miss]:
    """Up to ``most`` of either kind in each category, the worst first."""
    found: list[Miss] = []
    for category, threshold in sorted(thresholds.items()):
        group = [(one.score / threshold, one) for one in judged if one.image.category == category and one.score]
        escapes = sorted((m, one.image.path, one) for m, one in group if one.image.defective and m < 1)
        rejects = sorted((-m, one.image.path, one) for m, one in group if not one.image.defective and m >= 1)
        kinds: tuple[tuple[Kind, list[tuple[float, str, Judged]]], ...] = (
            ("escape", escapes),
            ("false_reject", rejects),
        )
        for kind, sides in kinds:
            found += [
                Miss(one, kind, abs(m), f"{OVERLAYS}/{category}/{kind}-{number + 1}.png")
                for number, (m, _, one) in enumerate(sides[:most])
            ]
    return found


def is_overlay(file: str) -> bool:
    """Whether a name is one that worst_misses gives, in this evaluation or in another."""
    kinds = "|".join(get_args(Kind))
    return re.fullmatch(rf"{OVERLAYS}/[^/]+/({kinds})-[1-9]\d*\.png", file) is not None


def picture(miss: Miss, threshold: float, preprocessing: Preprocessing) -> bytes:
    """The picture with an outline of its mask, if it has one, beside its overlay; as the bytes of a PNG file."""
    assert miss.judged.error_map is not None
    pixels = decode_test_image(miss.judged.image, preprocessing)
    relative = relative_map(miss.judged.error_map, threshold, (SIZE, SIZE))
    outlined = pixels.copy()
    if miss.judged.image.mask is not None:
        mask = read_mask(miss.judged.image.mask)
        outlined[binary_dilation(mask, iterations=2) & ~mask] = OUTLINE
    pair: npt.NDArray[np.uint8] = np.concatenate([outlined, overlay(relative, pixels)], axis=1)
    return png(pair)
