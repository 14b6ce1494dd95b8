"""From judged images to the figures of each category, their mean, and those of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.decision import UNKNOWN_CATEGORY
from anomaly_core.metrics import Decided, Rate, average_precision, decided, f1_at, image_auroc, rate
from anomaly_core.pixel_metrics import POINTING_TOLERANCE, aupro, pixel_auroc, pointing_distances
from anomaly_core.preprocess import SIZE
from anomaly_core.scoring import upsample
from jobs.evaluation.images import GOOD, TestImage, read_mask
from jobs.evaluation.judge import Judged


@dataclass(frozen=True)
class Defect:
    """One kind of defect of a category. escapes: of images that the right autoencoder scores."""

    images: int
    escapes: Rate
    mean_margin: float


@dataclass(frozen=True)
class Routing:
    """good, defective: images routed to their category. good_unknown, defective_unknown: called unknown products,
    of none if the bundle cannot tell them.

    smallest_margin: of the right category's logit over the highest other one, and nearest the image that has it; None
    for a bundle of one category.
    """

    good: Rate
    defective: Rate
    good_unknown: Rate
    defective_unknown: Rate
    smallest_confidence: float
    smallest_margin: float | None
    nearest: str | None


@dataclass(frozen=True)
class Pointing:
    """The pointing game, over defective images whose mask is not empty. hits: the highest pixel of the error map is
    within the mask; near: or at most 15 pixels from it, at 224 x 224."""

    hits: Rate
    near: Rate


@dataclass(frozen=True)
class Figures:
    """Of one category, by the right autoencoder, except end_to_end, which is what an audit gives.

    A figure is None where the images do not have what it needs: good and defective ones, masks. masks: images that the
    figures of pixels are of, good ones and those with a mask.
    """

    images: int
    threshold: float
    auroc: float | None
    average_precision: float | None
    f1: float | None
    pixel_auroc: float | None
    aupro: float | None
    masks: int
    pointing: Pointing
    at_threshold: Decided
    end_to_end: Decided
    routing: Routing
    defects: dict[str, Defect]


MEANS = ("auroc", "average_precision", "f1", "pixel_auroc", "aupro")


@dataclass(frozen=True)
class Summary:
    """Of all categories: unweighted means of their figures, and rates over all images."""

    mean: dict[str, float | None]
    pointing: Pointing
    at_threshold: Decided
    end_to_end: Decided
    routing: Routing


@dataclass(frozen=True)
class Unknown:
    """Images of a category that the bundle does not know. called_unknown: as they should be; passed: decided normal."""

    images: int
    called_unknown: Rate
    passed: Rate
    routed_to: dict[str, int]


@dataclass(frozen=True)
class Evaluation:
    """All figures. unknown: categories that the bundle does not know."""

    categories: dict[str, Figures]
    summary: Summary
    unknown: dict[str, Unknown]


def evaluate(
    judged: Sequence[Judged],
    thresholds: Mapping[str, float],
    progress: Callable[[str], None] = lambda category: None,
) -> Evaluation:
    """All figures of judged images, some of them of categories that have a threshold. progress is told the category
    that is begun. Raises EvaluationError for a mask that cannot be read."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.image.category, []).append(one)
    figures: dict[str, Figures] = {}
    unknown: dict[str, Unknown] = {}
    for category, group in sorted(groups.items()):
        progress(category)
        if category in thresholds:
            figures[category] = _category(group, thresholds[category])
        else:
            unknown[category] = _unknown(group)
    known = [one for one in judged if one.image.category in thresholds]
    return Evaluation(figures, _summary(known, figures, thresholds), unknown)


def _category(group: Sequence[Judged], threshold: float) -> Figures:
    truth = [one.image.defective for one in group]
    scores = np.array([one.score for one in group], dtype=np.float64)
    both = any(truth) and not all(truth)
    pixels = [one for one in group if not one.image.defective or one.image.mask is not None]
    pixel, pro, pointing = _pixel_figures(pixels) if any(one.image.mask for one in pixels) else _NO_PIXELS
    return Figures(
        images=len(group),
        threshold=threshold,
        auroc=image_auroc(truth, scores) if both else None,
        average_precision=average_precision(truth, scores) if both else None,
        f1=f1_at(truth, scores, threshold) if both else None,
        pixel_auroc=pixel,
        aupro=pro,
        masks=len(pixels) if pixel is not None else 0,
        pointing=pointing,
        at_threshold=decided(truth, by_threshold(scores, threshold)),
        end_to_end=decided(truth, [one.decision for one in group]),
        routing=_routing(group),
        defects=_defects(group, scores, threshold),
    )


def _summary(known: Sequence[Judged], figures: Mapping[str, Figures], thresholds: Mapping[str, float]) -> Summary:
    truth = [one.image.defective for one in known]
    said = [by_threshold(np.array([one.score]), thresholds[one.image.category])[0] for one in known]
    mean: dict[str, float | None] = {}
    for name in MEANS:
        values = [getattr(one, name) for one in figures.values() if getattr(one, name) is not None]
        mean[name] = float(np.mean(values)) if values else None
    each = [one.pointing for one in figures.values()]
    pointing = Pointing(*(_together([getattr(one, name) for one in each]) for name in ("hits", "near")))
    end_to_end = decided(truth, [one.decision for one in known])
    return Summary(mean, pointing, decided(truth, said), end_to_end, _routing(known))


def _together(rates: Sequence[Rate]) -> Rate:
    return rate(sum(one.count for one in rates), sum(one.of for one in rates))


def by_threshold(scores: npt.NDArray[np.floating], threshold: float) -> list[str]:
    """What a threshold alone decides of scores (N,): at or above it anomalous, else normal."""
    return ["anomalous" if score >= threshold else "normal" for score in scores]


def _routing(group: Sequence[Judged]) -> Routing:
    told = [one for one in group if one.distance is not None]  # none if the bundle cannot tell unknown products

    def share(defective: bool, holds: Callable[[Judged], bool], of: Sequence[Judged] = group) -> Rate:
        chosen = [holds(one) for one in of if one.image.defective == defective]
        return rate(sum(chosen), len(chosen))

    margins = [(one.logit_margin, one.image.path) for one in group if one.logit_margin is not None]
    smallest, nearest = min(margins, default=(None, None))
    return Routing(
        good=share(False, lambda one: one.routed_right),
        defective=share(True, lambda one: one.routed_right),
        good_unknown=share(False, _is_unknown, told),
        defective_unknown=share(True, _is_unknown, told),
        smallest_confidence=min(one.confidence for one in group),
        smallest_margin=smallest,
        nearest=nearest,
    )


def _is_unknown(one: Judged) -> bool:
    return one.reason == UNKNOWN_CATEGORY


def _defects(group: Sequence[Judged], scores: npt.NDArray[np.float64], threshold: float) -> dict[str, Defect]:
    kinds = np.array([one.image.defect for one in group])
    found = {}
    for kind in sorted(set(kinds) - {GOOD}):
        of_kind = scores[kinds == kind]
        escaped = rate(int((of_kind < threshold).sum()), len(of_kind))
        found[str(kind)] = Defect(len(of_kind), escaped, float((of_kind / threshold).mean()))
    return found


_NO_PIXELS = (None, None, Pointing(rate(0, 0), rate(0, 0)))


def _pixel_figures(group: Sequence[Judged]) -> tuple[float | None, float | None, Pointing]:
    """Pixel AUROC and AUPRO, None where they need good and defective pixels, and the pointing game."""
    masks = np.stack([_mask(one.image) for one in group])
    maps = torch.from_numpy(np.stack([one.error_map for one in group if one.error_map is not None]))
    large = upsample(maps).numpy()
    some = masks.any(axis=(1, 2))
    away = pointing_distances(masks[some], large[some])
    pointing = Pointing(
        hits=rate(int((away == 0).sum()), len(away)), near=rate(int((away <= POINTING_TOLERANCE).sum()), len(away))
    )
    if masks.all() or not masks.any():
        return None, None, pointing
    return pixel_auroc(masks, large), aupro(masks, large), pointing


def _mask(image: TestImage) -> npt.NDArray[np.bool_]:
    if image.mask is None:
        return np.zeros((SIZE, SIZE), dtype=bool)
    return read_mask(image.mask)


def _unknown(group: Sequence[Judged]) -> Unknown:
    called, passed = sum(map(_is_unknown, group)), sum(one.decision == "normal" for one in group)
    routed: dict[str, int] = {}
    for one in group:
        routed[one.routed] = routed.get(one.routed, 0) + 1
    images = len(group)
    return Unknown(images, rate(called, images), rate(passed, images), dict(sorted(routed.items())))
