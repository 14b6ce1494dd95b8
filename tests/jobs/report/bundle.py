"""A bundle of which nothing is there but its description: that is all that a report reads of it."""

from __future__ import annotations

from typing import Literal

from anomaly_core.bundle_manifest import (
    BACKBONE_FILE,
    BUNDLE_FILE,
    BackboneInfo,
    BundleManifest,
    CategoryInfo,
    RouterInfo,
)
from jobs.storage import write_bytes
from jobs.uris import join
from tests.nights import CATEGORIES, THRESHOLDS, calibration_scores


def write_bundle_description(
    folder: str, calibrated_on: Literal["training_images", "held_out_images"] = "held_out_images"
) -> str:
    """Write bundle.json with the calibration scores of the drawn nights' categories; returns the bundle's digest."""
    training = {
        category: CategoryInfo(
            images=200,
            images_sha256="0" * 64,
            losses=[1.0],
            best_epoch=0,
            seconds=1.0,
            threshold=THRESHOLDS[category],
            calibration_scores=calibration_scores(category),
        )
        for category in CATEGORIES
    }
    manifest = BundleManifest(
        created_by="tests",
        created_at="2026-01-01T00:00:00+00:00",
        categories=list(CATEGORIES),
        backbone=BackboneInfo(form="v1.5", source="none", sha256="0" * 64),
        router=RouterInfo(source="none"),
        precision="bfloat16",
        recipe={},
        threshold_rule="conformal:0.01",
        calibrated_on=calibrated_on,
        training=training,
        files={BACKBONE_FILE: "0" * 64},
    )
    write_bytes(join(folder, BUNDLE_FILE), manifest.to_bytes())
    return manifest.digest
