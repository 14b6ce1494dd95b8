"""Test images through the models: what the job would decide, and what the right autoencoder says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_core.bundle import Bundle
from anomaly_core.decision import Decision, DecisionRule
from anomaly_core.forms import Precision
from anomaly_core.known import pooled
from anomaly_core.preprocess import ImageError, Preprocessing, decode
from anomaly_core.scoring import CategoryScorer, Routed, Scored
from jobs.evaluation.images import EvaluationError, TestImage
from jobs.storage import read_bytes

READERS = 16
AT_ONCE = 64


@dataclass(frozen=True)
class Judged:
    """One test image, judged.

    routed, confidence: what the router says. logit_margin: the logit of the right category less the highest other one,
    above 0 if the routing is right; None if there is no other. score, error_map (28, 28): of the right category's
    autoencoder. All three are None for a category that the bundle does not know.

    distance: from the routed category's training images, as a multiple of the limit above which the product is unknown;
    None if the bundle cannot tell. routed_score: by the routed category's autoencoder, which an audit does not ask for
    an unknown product. threshold, decision, reason: what an audit gives, misrouted or not.
    """

    image: TestImage
    routed: str
    confidence: float
    distance: float | None
    logit_margin: float | None
    score: float | None
    error_map: npt.NDArray[np.float32] | None
    routed_score: float
    threshold: float
    decision: Decision
    reason: str | None

    @property
    def routed_right(self) -> bool:
        """Whether the router names the image's category."""
        return self.routed == self.image.category


def judge(
    bundle: Bundle,
    images: Sequence[TestImage],
    device: str,
    precision: Precision,
    min_confidence: float,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Judged]:
    """Route and score test images, in order. progress is told how many are done.

    Raises EvaluationError naming the image that cannot be decoded: figures of what is left would not be honest ones.
    """
    extractor = bundle.extractor(device, precision)
    scorers = _Scorers(bundle, device, precision)
    rule, known = bundle.decision_rule(min_confidence), bundle.known()
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            pixels = np.stack(list(pool.map(lambda image: decode_test_image(image, bundle.preprocessing), part)))
            for rows, routed in extractor.micro_batches(pixels):
                distances = known(pooled(routed.layer2, routed.layer3)) if known else None
                yield from _judged(part[rows], routed, distances, bundle, rule, scorers)
            progress(start + len(part))


class _Scorers:
    """Autoencoders, each built when its category first comes."""

    def __init__(self, bundle: Bundle, device: str, precision: Precision):
        self.bundle, self.device, self.precision = bundle, device, precision
        self.built: dict[str, CategoryScorer] = {}

    def __call__(self, category: str, routed: Routed, rows: Sequence[int]) -> Scored:
        if category not in self.built:
            self.built[category] = self.bundle.scorer(category, self.device, self.precision)
        return self.built[category](routed.layer2[list(rows)], routed.layer3[list(rows)])


def _judged(
    images: Sequence[TestImage],
    routed: Routed,
    distances: npt.NDArray[np.float32] | None,
    bundle: Bundle,
    rule: DecisionRule,
    scorers: _Scorers,
) -> Iterator[Judged]:
    names = [bundle.categories[i] for i in routed.category]
    own = _scored(
        scorers, routed, [image.category if image.category in bundle.categories else None for image in images]
    )
    other = _scored(
        scorers, routed, [n if n != image.category else None for n, image in zip(names, images, strict=True)]
    )
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        score, error_map = own.get(row, (None, None))
        routed_score = other[row][0] if row in other else score
        assert routed_score is not None
        confidence, threshold = float(routed.confidence[row]), bundle.thresholds[name]
        distance = None if distances is None else float(distances[row, routed.category[row]])
        decision, reason = rule(
            routed_score, threshold, confidence=confidence, category=name, declared=None, distance=distance
        )
        margin = _logit_margin(routed.logits[row], bundle.categories, image.category)
        yield Judged(
            image, name, confidence, distance, margin, score, error_map, routed_score, threshold, decision, reason
        )


def _scored(
    scorers: _Scorers, routed: Routed, categories: Sequence[str | None]
) -> dict[int, tuple[float, npt.NDArray[np.float32]]]:
    """Score and error map of each row that has a category, by its autoencoder."""
    found: dict[int, tuple[float, npt.NDArray[np.float32]]] = {}
    for category in sorted({name for name in categories if name is not None}):
        rows = [row for row, name in enumerate(categories) if name == category]
        scored = scorers(category, routed, rows)
        found |= {
            row: (float(score), error_map)
            for row, score, error_map in zip(rows, scored.score, scored.error_map, strict=True)
        }
    return found


def _logit_margin(logits: npt.NDArray[np.float32], categories: Sequence[str], category: str) -> float | None:
    if category not in categories:
        return None
    right = categories.index(category)
    others = np.delete(logits, right)
    return float(logits[right] - others.max()) if len(others) else None


def decode_test_image(image: TestImage, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """uint8 (224, 224, 3). Raises EvaluationError naming the image, StorageAccessError."""
    try:
        return decode(read_bytes(image.uri), preprocessing=preprocessing).pixels
    except ImageError as error:
        raise EvaluationError(
            f"{image.uri}: {error.code}: {error.message}; take the image out of the test set"
        ) from error
