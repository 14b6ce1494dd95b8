"""One image through the whole method, in one process: what the app shows, from the parts that the job runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomaly_core.bundle import Bundle
from anomaly_core.bundle_manifest import BundleError, cae_file
from anomaly_core.calibration import p_value
from anomaly_core.decision import Decision, is_unknown
from anomaly_core.forms import Precision
from anomaly_core.heatmap import heatmap, overlay, relative_map
from anomaly_core.known import pooled
from anomaly_core.preprocess import SIZE, Limits, decode
from anomaly_core.scoring import CategoryScorer


@dataclass(frozen=True)
class Inspection:
    """What is known of one image. distance: from the category's training images as a multiple of the limit above which
    the product is unknown, or None if the bundle cannot tell. p_value: share of the bundle's unseen normal images that
    score as high; None if it has none, or the product is unknown. peak: x, y in original pixels.

    picture, heatmap, overlay: uint8 (224, 224, 3).
    """

    category: str
    confidence: float
    distance: float | None
    score: float
    threshold: float
    p_value: float | None
    decision: Decision
    reason: str | None
    peak: tuple[float, float]
    width: int
    height: int
    picture: npt.NDArray[np.uint8]
    heatmap: npt.NDArray[np.uint8]
    overlay: npt.NDArray[np.uint8]

    @property
    def margin(self) -> float:
        """score / threshold: 1 and above is anomalous."""
        return self.score / self.threshold


class Inspector:
    """A bundle ready to inspect single images; autoencoders are loaded when their category first comes."""

    def __init__(self, bundle: Bundle, device: str, precision: Precision, min_confidence: float = 0.5):
        self.bundle, self.device, self.precision = bundle, device, precision
        self.rule = bundle.decision_rule(min_confidence)
        self._extractor, self._known = bundle.extractor(device, precision), bundle.known()
        self._scorers: dict[str, CategoryScorer] = {}
        self._lock = threading.Lock()

    def inspect(self, data: bytes, limits: Limits | None = None, category: str | None = None) -> Inspection:
        """Score the bytes of one image file, with the autoencoder of a category or, if None, of the routed one.

        Raises ImageError if it cannot be decoded, BundleError.
        """
        decoded = decode(data, limits, self.bundle.preprocessing)
        with self._lock:  # one image at a time: requests of an app come from many threads
            routed = self._extractor(decoded.pixels[None])
            category = category or self.bundle.categories[int(routed.category[0])]
            distance = None
            if self._known is not None:
                features = pooled(routed.layer2, routed.layer3)
                distance = float(self._known(features)[0, self.bundle.categories.index(category)])
            if category not in self._scorers:
                self._scorers[category] = self.bundle.scorer(category, self.device, self.precision)
            scored = self._scorers[category](routed.layer2, routed.layer3)
        score, threshold = float(scored.score[0]), self.bundle.thresholds[category]
        if not np.isfinite(score):
            raise BundleError(f"{cae_file(category)} gives the score {score}: its weights are damaged")
        confidence = float(routed.confidence[0])
        decision, reason = self.rule(
            score, threshold, confidence=confidence, category=category, declared=None, distance=distance
        )
        calibration = [] if is_unknown(distance) else self.bundle.calibration_scores(category)
        relative = relative_map(scored.error_map[0], threshold, (SIZE, SIZE))
        return Inspection(
            category=category,
            confidence=confidence,
            distance=distance,
            score=score,
            threshold=threshold,
            p_value=p_value(score, calibration) if calibration else None,
            decision=decision,
            reason=reason,
            peak=(float(scored.peak[0, 0] * decoded.width), float(scored.peak[0, 1] * decoded.height)),
            width=decoded.width,
            height=decoded.height,
            picture=decoded.pixels,
            heatmap=heatmap(relative),
            overlay=overlay(relative, decoded.pixels),
        )
