"""What a user would write instead: a DataLoader loop, and the reference's way. Each prints its figures as JSON.

Run as programs of their own: ``python -m tests.bench.baselines dataloader|reference BUNDLE MANIFEST OUTPUT COUNT``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

from anomaly_core.bundle import Bundle, load_pth
from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from jobs.bundles import read_bundle
from jobs.machine import cores
from tests.reference import pipeline

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISED = transforms.Compose(
    [
        transforms.Resize((224, 224)),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ]
)
BATCH = 32


class Images(Dataset[tuple[torch.Tensor, int]]):
    """The images of a manifest as tensors."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return NORMALISED(Image.open(self.rows[index]["uri"]).convert("RGB")), index


def dataloader(bundle: Bundle, rows: list[dict[str, Any]], output: Path) -> dict[str, float]:
    """Batches from worker processes, one for each core, models of torchvision in bfloat16 where the bundle says so."""
    dtype = torch.bfloat16 if bundle.precision == "bfloat16" else torch.float32
    router, backbone, caes = _models(bundle, dtype)
    torch.set_num_threads(cores())
    loader = DataLoader(Images(rows), batch_size=BATCH, num_workers=cores())
    results: list[dict[str, Any]] = []
    started, first = time.perf_counter(), 0.0
    with torch.inference_mode():
        for images, indices in loader:
            batch = images.to(dtype).contiguous(memory_format=torch.channels_last)
            router(batch).float().softmax(1).max(1)
            features = pipeline.features(backbone, batch)
            groups: dict[str, list[int]] = {}
            for position, index in enumerate(indices.tolist()):
                groups.setdefault(rows[index]["declared_category"], []).append(position)
            for category, members in groups.items():
                maps = features[members]
                errors = (maps.float() - caes[category](maps).float()).square().mean(1)
                large = torch.nn.functional.interpolate(errors[:, None], (224, 224), mode="bilinear")
                scores = large.flatten(1).topk(10).values.mean(1)
                for place, member in enumerate(members):
                    row = rows[int(indices[member])]
                    results.append(
                        _result(bundle, row, category, float(scores[place]), errors[place], images[member], output)
                    )
            first = first or time.perf_counter()
    pq.write_table(pa.Table.from_pylist(results), output / "results.parquet")
    return {"seconds": time.perf_counter() - first, "images": len(rows) - BATCH, "start": first - started}


def reference(bundle: Bundle, rows: list[dict[str, Any]], output: Path) -> dict[str, float]:
    """One image after the other, in float32, with whole networks and hooks."""
    router, backbone, caes = _models(bundle, torch.float32)
    torch.set_num_threads(cores())
    results = []
    in_models = first = 0.0
    with torch.inference_mode():
        for number, row in enumerate(rows):
            if number == 1:  # the first one warms up
                first, in_models = time.perf_counter(), 0.0
            image = NORMALISED(Image.open(row["uri"]).convert("RGB"))[None]
            start = time.perf_counter()
            router(image).softmax(1).max(1)
            features = pipeline.features(backbone, image)
            category = row["declared_category"]
            errors = pipeline.error_map(features, caes[category](features))
            value = pipeline.score(errors)
            in_models += time.perf_counter() - start
            results.append(_result(bundle, row, category, value, errors, image[0], output))
    pq.write_table(pa.Table.from_pylist(results), output / "results.parquet")
    return {"seconds": time.perf_counter() - first, "images": len(rows) - 1, "model_seconds": in_models}


def _models(bundle: Bundle, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any]]:
    router = models.resnet18(weights=None)
    router.fc = torch.nn.Linear(512, len(bundle.categories))
    state: Any = load_pth(bundle.files, "best_classifier.pth")
    router.load_state_dict(state["model_state_dict"])
    backbone_state: Any = load_pth(bundle.files, "backbone.pth")
    backbone = pipeline.resnet50(bundle.form, backbone_state)
    caes: dict[str, Any] = {c: pipeline.load_cae(load_pth(bundle.files, f"cae_{c}.pth")) for c in bundle.categories}  # type: ignore[arg-type]
    last = torch.channels_last
    return (
        router.eval().to(dtype=dtype, memory_format=last),
        backbone.eval().to(dtype=dtype, memory_format=last),
        {c: cae.to(dtype=dtype, memory_format=last) for c, cae in caes.items()},
    )


def _result(
    bundle: Bundle,
    row: dict[str, Any],
    category: str,
    score: float,
    errors: torch.Tensor,
    image: torch.Tensor,
    output: Path,
) -> dict[str, Any]:
    """A row as the job's, with the pictures of what is over the threshold."""
    threshold = bundle.thresholds[category]
    if score >= threshold:
        relative = relative_map(errors.numpy(), threshold, (224, 224))
        pixels = image.permute(1, 2, 0).numpy() * DEVIATION + MEAN
        picture = (255 * pixels).round().clip(0, 255).astype(np.uint8)
        name = Path(row["uri"]).stem
        (output / f"{name}.png").write_bytes(png(heatmap(relative)))
        (output / f"{name}_overlay.png").write_bytes(png(overlay(relative, picture)))
    return {"uri": row["uri"], "category": category, "score": score, "anomalous": score >= threshold}


def main() -> None:
    """See the module."""
    way, folder, manifest, output, count = sys.argv[1:]
    bundle = read_bundle(folder)
    rows = pq.read_table(manifest).slice(0, int(count)).to_pylist()
    Path(output).mkdir(parents=True, exist_ok=True)
    print(json.dumps({"dataloader": dataloader, "reference": reference}[way](bundle, rows, Path(output))))


if __name__ == "__main__":
    main()
