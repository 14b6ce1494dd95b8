"""Bundles for tests: the real architectures with seeded random weights, written in no time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.bundle import save_pth
from anomaly_core.bundle_manifest import (
    BACKBONE_FILE,
    BUNDLE_FILE,
    KNOWN_FILE,
    ROUTER_FILE,
    THRESHOLDS_FILE,
    BackboneInfo,
    BundleManifest,
    CategoryInfo,
    RouterInfo,
    cae_file,
    sha256,
)
from anomaly_core.cae import CAE
from anomaly_core.features import load_backbone, random_backbone_state
from anomaly_core.forms import BackboneForm, Precision
from anomaly_core.known import LEAST, fit_known, pooled
from anomaly_core.preprocess import normalise
from anomaly_core.router import build_router
from anomaly_core.self_test import with_references
from tests.anomaly_core.files import encode


def random_pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth random pictures, uint8 (count, 224, 224, 3)."""
    coarse = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (224, 224), mode="bilinear")
    return (fine.permute(0, 2, 3, 1) * 255).byte().numpy()


def write_random_bundle(
    folder: Path,
    categories: Sequence[str] = ("cap", "gear", "tile"),
    *,
    seed: int = 0,
    threshold: float | Mapping[str, float] = 1.0,
    reference: bool = False,
    precision: Precision = "float32",
    backbone: tuple[Mapping[str, torch.Tensor], BackboneForm] | None = None,
    source: str = "random",
    references: int = 0,
    calibration: Sequence[float] = (),
    known: bool = False,
) -> Path:
    """A bundle of random weights; with reference, the reference's files only.

    references: how many images of each category the bundle's self-test has. calibration: scores of images that the
    autoencoders have not seen. known: it tells pictures such as ``random_pixels`` draws from others.
    threshold: one for all categories, or one for each. backbone: state and form, for another than a random one, which
    source names.
    A random CAE reconstructs little, so scores are the size of squared features: some above 1, some below.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    router = build_router(len(categories))
    if backbone is None:
        backbone = random_backbone_state(normalise(torch.from_numpy(random_pixels(4, seed))), seed), "v1.5"
    state, form = backbone
    thresholds = dict.fromkeys(categories, threshold) if isinstance(threshold, float) else dict(threshold)
    files = {ROUTER_FILE: save_pth({"model_state_dict": router.state_dict()})}
    for category in categories:
        files[cae_file(category)] = save_pth(CAE().state_dict())
    files[THRESHOLDS_FILE] = (json.dumps(thresholds) + "\n").encode()
    if reference:
        (folder.parent / "backbone.pth").write_bytes(save_pth(dict(state)))
    else:
        files[BACKBONE_FILE] = save_pth(dict(state))
        training = {
            category: CategoryInfo(
                images=4,
                images_sha256="0" * 64,
                losses=[1.0],
                best_epoch=0,
                seconds=0.1,
                threshold=value,
                calibration_scores=sorted(calibration) or [value],
            )
            for category, value in thresholds.items()
        }
        if known:
            network, count = load_backbone(state, form), len(categories)
            seen = pooled(*network(normalise(torch.from_numpy(random_pixels(LEAST + count, 60)))))
            features = [seen[i : LEAST + i] for i in range(count)]
            found = fit_known(features)  # one category in all but name: nothing is between its images and their limit
            files[KNOWN_FILE] = replace(found, limits=3 * found.limits).to_bytes()
        files[BUNDLE_FILE] = BundleManifest(
            created_by="tests",
            created_at="2026-01-01T00:00:00+00:00",
            categories=list(categories),
            backbone=BackboneInfo(form=form, source=source, sha256=sha256(files[BACKBONE_FILE])),
            router=RouterInfo(source="random"),
            precision=precision,
            recipe={"name": "random"},
            threshold_rule="mean_plus_3sigma",
            calibrated_on="held_out_images" if calibration else "training_images",
            training=training,
            files={name: sha256(data) for name, data in files.items()},
        ).to_bytes()
    if references:
        files = with_references(files, reference_images(categories, references, seed), "cpu")
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def reference_images(categories: Sequence[str], count: int, seed: int = 0) -> dict[str, list[bytes]]:
    """So many PNG files for each category."""
    pixels = iter(random_pixels(count * len(categories), seed + 100))
    return {category: [encode(next(pixels), "PNG") for _ in range(count)] for category in categories}
