"""Figures by which error maps are judged against masks of the defects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

AUPRO_LIMIT = 0.3
POINTING_TOLERANCE = 15  # pixels, as in the pointing game of Zhang et al. 2016
_EIGHT = np.ones((3, 3), dtype=np.int8)  # pixels that touch at a corner are one region


def pixel_auroc(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32]) -> float:
    """Area under the ROC curve over all pixels. masks: bool (N, H, W), defect; maps: float32 (N, H, W).

    Raises ValueError if no pixel is defective or none is good.
    """
    _check(masks, maps)
    return float(roc_auc_score(masks.ravel(), maps.ravel()))


def aupro(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32], limit: float = AUPRO_LIMIT) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it (Bergmann et al. 2021).

    The curve: at every threshold, the share of each defective region (8-connected) that lies at or above it, averaged
    over the regions of all images, against the share of good pixels that do. It is exact: no thresholds are sampled.

    masks: bool (N, H, W); maps: float32 (N, H, W). Takes about 40 bytes a pixel. Raises ValueError if no pixel is
    defective or none is good, or the limit is not in (0, 1].
    """
    _check(masks, maps)
    if not 0 < limit <= 1:
        raise ValueError(f"the limit is a false-positive rate in (0, 1], not {limit}")
    gains = _region_shares(masks).ravel()
    good = (~masks).ravel()
    values = maps.ravel()
    order = np.argsort(-values, kind="stable")
    overlap = np.cumsum(gains[order])
    false_positives = np.cumsum(good[order]) / good.sum()
    # Pixels of one value pass a threshold together.
    last = np.flatnonzero(np.append(values[order][1:] != values[order][:-1], True))
    x = np.concatenate([[0.0], false_positives[last]])
    y = np.concatenate([[0.0], overlap[last]])
    return _area(x, y, limit) / limit


def pointing_distances(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of each map, how far its highest pixel is from the nearest defective one, in pixels; 0 is a hit. float64 (N,).

    The pointing game (Zhang et al. 2016), in which a pixel that is no farther than a tolerance is a hit too. Of several
    highest pixels the first is taken. masks: bool (N, H, W); maps: float32 (N, H, W). Raises ValueError if the shapes
    differ or a mask has no defective pixel.
    """
    _check_shapes(masks, maps)
    if not masks.any(axis=(1, 2)).all():
        raise ValueError("the pointing game needs a defective pixel in every mask")
    height, width = maps.shape[1:]
    peaks = np.divmod(maps.reshape(-1, height * width).argmax(axis=1), width)
    found = [
        np.hypot(*(np.argwhere(mask) - (row, column)).T).min() for mask, row, column in zip(masks, *peaks, strict=True)
    ]
    return np.array(found, np.float64)


def _region_shares(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """What each pixel adds to the mean overlap: 1 / (size of its region x number of regions), 0 where it is good."""
    shares, regions = np.zeros(masks.shape), 0
    for share, mask in zip(shares, masks, strict=True):
        labelled, found = label(mask, structure=_EIGHT)
        sizes = np.bincount(labelled.ravel(), minlength=found + 1)
        share[mask] = 1 / sizes[labelled[mask]]
        regions += found
    return shares / regions


def _area(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], limit: float) -> float:
    end = int(np.searchsorted(x, limit, side="right"))
    x_in, y_in = x[:end], y[:end]
    if x_in[-1] < limit:
        x_in, y_in = np.append(x_in, limit), np.append(y_in, np.interp(limit, x, y))
    return float(np.trapezoid(y_in, x_in))


def _check(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32]) -> None:
    _check_shapes(masks, maps)
    if masks.all() or not masks.any():
        raise ValueError("this figure needs good and defective pixels")


def _check_shapes(masks: npt.NDArray[np.bool_], maps: npt.NDArray[np.float32]) -> None:
    if masks.shape != maps.shape or masks.ndim != 3:
        raise ValueError(f"masks {masks.shape} and maps {maps.shape} must be of one shape (N, H, W)")
