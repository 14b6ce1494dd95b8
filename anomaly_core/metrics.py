"""Figures by which scores and decisions are judged. A defective image is the positive class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score


@dataclass(frozen=True)
class Rates:
    """Counts of good parts rejected and of defective parts passed."""

    good: int
    defective: int
    false_rejects: int
    escapes: int


def image_auroc(defective: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve over images. defective: bool (N,). Raises ValueError if one class is absent."""
    truth = np.asarray(defective, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError("the area under the ROC curve needs good and defective images")
    return float(roc_auc_score(truth, np.asarray(scores, dtype=np.float64)))


def rates(defective: npt.ArrayLike, rejected: npt.ArrayLike) -> Rates:
    """False rejects and escapes from truth and decision, bool (N,) each."""
    truth, decided = np.asarray(defective, dtype=bool), np.asarray(rejected, dtype=bool)
    return Rates(
        good=int((~truth).sum()),
        defective=int(truth.sum()),
        false_rejects=int((~truth & decided).sum()),
        escapes=int((truth & ~decided).sum()),
    )
