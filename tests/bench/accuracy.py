"""What the precision and the fast paths change: scores of real images against plain float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from anomaly_core.bundle import Bundle, load_pth
from anomaly_core.preprocess import decode
from jobs.bundles import read_bundle
from tests.reference import pipeline


def accuracy(folder: Path, images: Path, limit: int | None = None) -> dict[str, Any]:
    """Image AUROC by category in plain float32 and as the job computes it, and the decisions that differ.

    images: the test images in MVTec AD layout. The plain side is the re-statement of the method on torchvision's
    modules, which shares no code with the job.
    """
    bundle = read_bundle(str(folder))
    found: dict[str, Any] = {}
    differ: list[float] = []
    total = 0
    for category in bundle.categories:
        paths = sorted((images / category / "test").rglob("*.png"))[:limit]
        labels = [path.parent.name != "good" for path in paths]
        plain = np.array(_plain(bundle, category, paths))
        threshold = bundle.thresholds[category]
        found[category] = {"images": len(paths), "auroc": {"plain float32": round(roc_auc_score(labels, plain), 4)}}
        for precision in ("float32", "bfloat16"):
            scores = np.array(_job(bundle, category, paths, precision))
            found[category]["auroc"][precision] = round(roc_auc_score(labels, scores), 4)
            found[category][f"{precision}: largest relative difference"] = float(np.max(np.abs(scores / plain - 1)))
            if precision == "bfloat16":
                moved = (scores >= threshold) != (plain >= threshold)
                differ += [float(m) for m in np.abs(plain[moved] / threshold - 1)]
                total += len(paths)
    return {
        "categories": found,
        "images": total,
        "decisions_that_differ": len(differ),
        "their_distance_from_the_threshold": [round(value, 5) for value in sorted(differ)],
    }


@torch.inference_mode()
def _plain(bundle: Bundle, category: str, paths: list[Path]) -> list[float]:
    state: Any = load_pth(bundle.files, "backbone.pth")
    cae_state: Any = load_pth(bundle.files, f"cae_{category}.pth")
    backbone, cae = pipeline.resnet50(bundle.form, state), pipeline.load_cae(cae_state)
    scores = []
    for path in paths:
        maps = pipeline.features(backbone, pipeline.load_image(path))
        scores.append(pipeline.score(pipeline.error_map(maps, cae(maps))))
    return scores


def _job(bundle: Bundle, category: str, paths: list[Path], precision: Any) -> list[float]:
    extractor, scorer = bundle.extractor("cpu", precision), bundle.scorer(category, "cpu", precision)
    scores = []
    for start in range(0, len(paths), extractor.micro_batch):
        pixels = [decode(path.read_bytes()).pixels for path in paths[start : start + extractor.micro_batch]]
        routed = extractor(np.stack(pixels))
        scores += [float(score) for score in scorer(routed.layer2, routed.layer3).score]
    return scores
