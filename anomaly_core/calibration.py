"""Thresholds from the scores of normal images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MEAN_PLUS_3SIGMA = "mean_plus_3sigma"


def mean_plus_3sigma(scores: npt.ArrayLike) -> float:
    """T = mean + 3 x population standard deviation of the scores of normal images (the reference's rule).

    Raises ValueError if there is no score or one is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a threshold needs at least one score, and all of them finite")
    return float(values.mean() + 3 * values.std())


def p_value(score: float, calibration: Sequence[float]) -> float:
    """Share of normal images that score at least as high, (1 + count) / (n + 1): a conformal p-value.

    Valid only for scores of normal images that the CAE was not trained on.
    """
    reached = int(np.count_nonzero(np.asarray(calibration, dtype=np.float64) >= score))
    return (1 + reached) / (len(calibration) + 1)
