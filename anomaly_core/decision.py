"""From score, threshold and routing to what the line does with the part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# Why an image that shows none of the bundle's products is not scored.
UNKNOWN_CATEGORY = "unknown_category"
Decision = Literal["normal", "anomalous", "review", "failed"]


@dataclass(frozen=True)
class DecisionRule:
    """How a score becomes a decision.

    reference: the reference's rule and no other, score >= T is anomalous, else normal. min_confidence: below this
    softmax probability of the router a part that would pass goes to review.
    """

    reference: bool = False
    min_confidence: float = 0.5

    def __call__(
        self,
        score: float,
        threshold: float,
        *,
        confidence: float,
        category: str,
        declared: str | None,
        distance: float | None = None,
    ) -> tuple[Decision, str | None]:
        """The decision and its reason. A doubt never hides a defect: it only keeps a part from passing unseen.

        distance: from the category's training images as a multiple of its limit; above it the score means nothing.

        Raises ValueError for a score that is no number: nothing can be decided from it.
        """
        if not math.isfinite(score):
            raise ValueError(f"the score is {score}")
        anomalous = score >= threshold
        if self.reference:
            return ("anomalous", "score_at_or_above_threshold") if anomalous else ("normal", None)
        if is_unknown(distance):
            return "review", UNKNOWN_CATEGORY
        doubts = []
        if not confidence >= self.min_confidence:
            doubts.append("low_routing_confidence")
        if declared is not None and declared != category:
            doubts.append("declared_category_disagrees")
        if anomalous:
            return "anomalous", ",".join(["score_at_or_above_threshold", *doubts])
        return ("review", ",".join(doubts)) if doubts else ("normal", None)


def is_unknown(distance: float | None) -> bool:
    """Whether an image so far from a category (a multiple of its limit; None if that is not known) shows another
    product. What is no number is far from everything."""
    return distance is not None and not distance <= 1
