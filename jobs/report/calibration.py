"""The scores that a run's bundle was calibrated with."""

from __future__ import annotations

from dataclasses import dataclass

from anomaly_core.bundle_manifest import BUNDLE_FILE, THRESHOLDS_FILE, BundleError, BundleManifest
from jobs.audit.record import RunRecord
from jobs.report.shifts import Calibration
from jobs.storage import exists, read_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join, normal


@dataclass(frozen=True)
class Calibrated:
    """scores: by category, of normal images that its autoencoder has not seen; None, and then why there are none."""

    scores: Calibration | None
    why_none: str = ""


def calibrated(record: RunRecord, bundle: str) -> Calibrated:
    """Of the bundle that a run was scored with. bundle: where that should be now."""
    place = normal(bundle)
    try:
        manifest = BundleManifest.from_bytes(read_bytes(join(place, BUNDLE_FILE)))
    except FileNotFoundError:
        if _has_thresholds(place):
            return Calibrated(None, "a bundle of the reference pipeline has no calibration scores")
        return Calibrated(None, f"the bundle is not at {place} any more; name a copy with --bundle")
    except (BundleError, StorageAccessError, ValueError) as error:
        return Calibrated(None, f"the bundle cannot be read: {error}")
    if manifest.digest != record.parts["bundle"]:
        return Calibrated(None, f"the bundle at {place} is another one by now; name a copy of the run's with --bundle")
    if manifest.calibrated_on != "held_out_images":
        return Calibrated(None, "the bundle's thresholds are from training images, whose scores are too low to compare")
    return Calibrated({category: one.calibration_scores for category, one in manifest.training.items()})


def _has_thresholds(place: str) -> bool:
    try:
        return exists(join(place, THRESHOLDS_FILE))
    except StorageAccessError:
        return False
