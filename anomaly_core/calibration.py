"""Thresholds and p-values from the scores of normal images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

MEAN_PLUS_3SIGMA = "mean_plus_3sigma"
CONFORMAL = "conformal"


@dataclass(frozen=True)
class Threshold:
    """A threshold with what it promises: the share of good parts that will score at or above it, at most, as long as
    they look like those of the calibration. None where the rule promises nothing."""

    value: float
    promised_false_rejects: float | None


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is set from the scores of normal images.

    false_rejects: share of good parts that may be rejected, of the conformal rule; None for mean_plus_3sigma.
    """

    false_rejects: Fraction | None = None

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """``mean_plus_3sigma`` or ``conformal:0.01``. Raises ValueError saying what may be written."""
        name, _, share = text.partition(":")
        if text == MEAN_PLUS_3SIGMA:
            return cls()
        try:
            found = Fraction(repr(float(share))) if name == CONFORMAL else None  # 0.01 itself, not its binary neighbour
        except (ValueError, OverflowError):
            found = None
        if found is None or not 0 < found < 1:
            raise ValueError(
                f"{text!r} is no rule for a threshold: write mean_plus_3sigma, or conformal:0.01 with the share of "
                "good parts that may be rejected, above 0 and below 1"
            )
        return cls(found)

    def __str__(self) -> str:
        return MEAN_PLUS_3SIGMA if self.false_rejects is None else f"{CONFORMAL}:{float(self.false_rejects)!r}"

    def __call__(self, scores: npt.ArrayLike) -> Threshold:
        """The threshold. Raises ValueError if there is no score or one is not finite."""
        if self.false_rejects is None:
            return Threshold(mean_plus_3sigma(scores), None)
        return conformal(scores, self.false_rejects)


def mean_plus_3sigma(scores: npt.ArrayLike) -> float:
    """T = mean + 3 x population standard deviation of the scores of normal images (the reference's rule).

    Raises ValueError if there is no score or one is not finite.
    """
    values = _checked(scores)
    return float(values.mean() + 3 * values.std())


def conformal(scores: npt.ArrayLike, false_rejects: float | Fraction) -> Threshold:
    """The smallest T that at most this share of good parts reaches, whatever the distribution of their scores.

    T lies just above the score of rank ceil((1 - a)(n + 1)) of the n given ones, since an image at T is rejected
    (split conformal prediction: Vovk et al. 2005). It holds on average over calibrations, for parts that are
    exchangeable with images that the autoencoder has not seen. n scores support no share below 1 / (n + 1): that one
    is then promised. Raises ValueError if there is no score or one is not finite.
    """
    values = np.sort(_checked(scores))
    asked = false_rejects if isinstance(false_rejects, Fraction) else Fraction(str(false_rejects))
    count = len(values)
    rank = min(math.ceil((1 - asked) * (count + 1)), count)
    # Scores are computed in float32: the next of them, so that no score lies between.
    value = float(np.nextafter(np.float32(values[rank - 1]), np.float32(np.inf)))
    return Threshold(value, float(max(asked, Fraction(1, count + 1))))


def p_value(score: float, calibration: Sequence[float]) -> float:
    """Share of normal images that score at least as high, (1 + count) / (n + 1): a conformal p-value.

    Valid only for scores of normal images that the CAE was not trained on.
    """
    reached = int(np.count_nonzero(np.asarray(calibration, dtype=np.float64) >= score))
    return (1 + reached) / (len(calibration) + 1)


def _checked(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a threshold needs at least one score, and all of them finite")
    return values
