"""The Ray task that fits the router over all categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anomaly_core.bundle import save_pth
from anomaly_core.bundle_manifest import ROUTER_FEATURES_FILE, ROUTER_FILE, RouterInfo, sha256
from anomaly_core.device import DTYPES
from anomaly_core.preprocess import normalise
from anomaly_core.router import load_router
from anomaly_core.training import fit_router
from jobs.storage import scratch
from jobs.training.images import TrainingImages, content, decode_images
from jobs.training.tasks import TaskSettings, reporter, save, some


def fit_all(
    images: Sequence[TrainingImages],
    initial: Mapping[str, torch.Tensor],
    source: str,
    settings: TaskSettings,
    threads: int,
    board: Any,
) -> RouterInfo:
    """Fit the router over all categories; write ``best_classifier.pth`` and its record."""
    torch.set_num_threads(threads)
    say = reporter(board, "router")
    uris = [uri for one in images for uri in one.uris]
    say("decoding")(0, len(uris))
    labels: npt.NDArray[np.int64] = np.repeat(np.arange(len(images)), [len(one.uris) for one in images])
    with scratch() as local:
        pixels, digests = decode_images(uris, local / "pixels", settings.preprocessing)
        fitted, frozen, accuracy = fit_router(
            pixels,
            labels,
            len(images),
            initial,
            settings.recipe,
            device=settings.device,
            precision=settings.precision,
            seed=settings.seed,
            progress=say("router"),
        )
        features = router_features(pixels, fitted.state, settings)
    info = RouterInfo(
        source=source,
        frozen_norms=frozen,
        losses=fitted.losses,
        training_accuracy=accuracy,
        seconds=round(fitted.seconds, 3),
    )
    by_category = {one.category: some(features[labels == i], settings.seed) for i, one in enumerate(images)}
    files = {
        ROUTER_FEATURES_FILE: save_pth(by_category),
        ROUTER_FILE: save_pth({"model_state_dict": fitted.state}),
    }
    save(settings, "router", router_identity(images), content(digests), files, info.model_dump())
    return info


@torch.inference_mode()
def router_features(
    pixels: npt.NDArray[np.uint8], state: Mapping[str, torch.Tensor], settings: TaskSettings
) -> torch.Tensor:
    """What the last layer of a router sees of images, float32 (N, 512)."""
    router = load_router(state, settings.device, DTYPES[settings.precision])
    found = []
    for start in range(0, len(pixels), 32):
        images = normalise(torch.tensor(pixels[start : start + 32], device=settings.device), router.weight.dtype)
        found.append(router.features(images).float().cpu())
    return torch.cat(found)


def router_identity(images: Sequence[TrainingImages]) -> str:
    """Digest of the images of all categories."""
    return sha256("\n".join(one.identity for one in images).encode())
