"""Figures by which scores and decisions of images are judged. A defective image is the positive class."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, hypergeom
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rate:
    """A share with its exact binomial interval (Clopper and Pearson 1934), or that of a finite population. All are None
    where of is 0."""

    count: int
    of: int
    rate: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.rate is None or self.low is None or self.high is None:
            return "-"
        return f"{100 * self.rate:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Decided:
    """What decisions did to good and to defective parts.

    false_rejects: good parts that were decided anomalous; escapes: defective ones decided normal; good_in_review and
    defective_in_review: what a person is asked to look at, neither rejected nor passed.
    """

    false_rejects: Rate
    escapes: Rate
    good_in_review: Rate
    defective_in_review: Rate


def rate(count: int, of: int, confidence: float = CONFIDENCE) -> Rate:
    """A share and its confidence interval."""
    if of == 0:
        return Rate(count, of, None, None, None)
    interval = binomtest(count, of).proportion_ci(confidence, method="exact")
    return Rate(count, of, count / of, float(interval.low), float(interval.high))


def rate_in(count: int, of: int, population: int, confidence: float = CONFIDENCE) -> Rate:
    """The share of a finite population, from a random sample drawn from it without putting back, and its interval.

    The exact hypergeometric interval: every number of the population for which neither so few nor so many in the sample
    have a probability of (1 - confidence) / 2 or less. So it holds at least the count that was seen, at most what was
    not seen to be otherwise, and nothing else once everything was seen. Raises ValueError if the sample is larger than
    the population.
    """
    if not 0 <= count <= of <= population:
        raise ValueError(f"{count} of a sample of {of} from {population}")
    if of == 0:
        return Rate(count, of, None, None, None)
    tail = (1 - confidence) / 2
    possible = range(count, population - (of - count) + 1)
    # The first probability grows with the number in the population, the second falls.
    low = bisect_right(possible, tail, key=lambda number: float(hypergeom.sf(count - 1, population, number, of)))
    high = bisect_left(possible, -tail, key=lambda number: -float(hypergeom.cdf(count, population, number, of)))
    return Rate(count, of, count / of, possible[low] / population, possible[high - 1] / population)


def decided(defective: npt.ArrayLike, decisions: npt.ArrayLike) -> Decided:
    """Rates from the truth, bool (N,), and the decisions (N,): normal, anomalous or review."""
    truth, said = np.asarray(defective, dtype=bool), np.asarray(decisions)
    bad, good = int(truth.sum()), int((~truth).sum())
    return Decided(
        false_rejects=rate(int((~truth & (said == "anomalous")).sum()), good),
        escapes=rate(int((truth & (said == "normal")).sum()), bad),
        good_in_review=rate(int((~truth & (said == "review")).sum()), good),
        defective_in_review=rate(int((truth & (said == "review")).sum()), bad),
    )


def image_auroc(defective: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve over images. defective: bool (N,). Raises ValueError if one class is absent."""
    return float(roc_auc_score(_both(defective), np.asarray(scores, dtype=np.float64)))


def average_precision(defective: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision over images. defective: bool (N,). Raises ValueError if one class is absent."""
    return float(average_precision_score(_both(defective), np.asarray(scores, dtype=np.float64)))


def f1_at(defective: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> float:
    """F1 of calling anomalous what scores at or above a threshold. Raises ValueError if one class is absent."""
    return float(f1_score(_both(defective), np.asarray(scores, dtype=np.float64) >= threshold, zero_division=0.0))


def _both(defective: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    truth = np.asarray(defective, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError("this figure needs good and defective images")
    return truth
