"""What the benchmarks audit: an archive of large images, its manifest, and a bundle of fifteen categories."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from anomaly_core.bundle import Bundle
from anomaly_core.forms import BackboneForm, Precision
from anomaly_core.preprocess import decode
from jobs.bundles import read_bundle
from tests.anomaly_core.files import encode
from tests.bundles import random_pixels, write_random_bundle
from tests.conftest import shared_root

CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
# Of these every image is over the threshold, and gets pictures: two of fifteen, more than a line has on a bad night.
ANOMALOUS = ("grid", "wood")


@dataclass(frozen=True)
class Source:
    """Images to make archives of. origin: where they are from, for the report."""

    images: tuple[tuple[str, bytes], ...]
    origin: str


def source(format: str) -> Source:
    """Native images (700 to 1024 pixels) of the shared folder, else drawn ones of that size; png or jpeg."""
    root = shared_root()
    paths = sorted((root / "data" / "native").rglob("*.png")) if root is not None else []
    if paths:
        base = [(path.relative_to(root / "data" / "native").parts[0], path.read_bytes()) for path in paths]  # type: ignore[operator]
        origin = f"{len(base)} native MVTec AD images"
    else:
        base = [(name, data) for name, data in drawn()]
        origin = f"{len(base)} drawn images of 1024 x 1024 pixels"
    if format == "jpeg":
        base = [(category, _jpeg(data)) for category, data in base]
        origin += ", as JPEG of quality 92"
    return Source(tuple(base), origin)


def drawn() -> list[tuple[str, bytes]]:
    """Smooth pictures with noise, whose PNGs are as large as those of cameras."""
    images = []
    generator = torch.Generator().manual_seed(0)
    for index, category in enumerate(CATEGORIES):
        smooth = Image.fromarray(random_pixels(1, seed=index)[0]).resize((1024, 1024), Image.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(smooth.tobytes()), dtype=torch.uint8).view(1024, 1024, 3)
        noise = torch.randn(1024, 1024, 3, generator=generator).mul(1.5).round()
        noisy = (pixels.float() + noise).clamp(0, 255).byte().numpy()
        images.append((category, encode(noisy, "PNG")))
    return images


def write_archive(folder: Path, images: Source, count: int, suffix: str) -> Path:
    """So many files in ``folder`` and a manifest of them, whose path is returned. The contents repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    uris, categories = [], []
    for index in range(count):
        category, data = images.images[index % len(images.images)]
        path = folder / f"{index:06d}.{suffix}"
        path.write_bytes(data)
        uris.append(str(path))
        categories.append(category)
    manifest = folder / "manifest.parquet"
    pq.write_table(pa.table({"uri": uris, "declared_category": categories}), manifest)
    return manifest


def write_bundle(folder: Path, images: Sequence[tuple[str, bytes]], precision: Precision) -> Bundle:
    """A bundle of fifteen categories with random autoencoders, calibrated so that only ANOMALOUS are anomalous."""
    root = shared_root()
    backbone: tuple[Mapping[str, torch.Tensor], BackboneForm] | None = None
    if root is not None:
        state = torch.load(root / "weights" / "resnet50_v1_caffe_imagenet_conv1_to_layer3.pth", weights_only=True)
        backbone = (state, "v1")

    def written(threshold: float | Mapping[str, float], references: int) -> Bundle:
        write_random_bundle(
            folder, CATEGORIES, threshold=threshold, precision=precision, backbone=backbone, references=references
        )
        return read_bundle(str(folder))

    bundle = written(1.0, 0)
    extractor = bundle.extractor("cpu", precision)
    scores: dict[str, list[float]] = {}
    for category, data in images:
        routed = extractor(decode(data).pixels[None])
        scored = bundle.scorer(category, "cpu", precision)(routed.layer2, routed.layer3)
        scores.setdefault(category, []).append(float(scored.score[0]))
    return written(
        {
            category: 0.5 * min(found) if category in ANOMALOUS else 2 * max(found)
            for category in CATEGORIES
            for found in [scores.get(category, [1.0])]
        },
        1,
    )


def _jpeg(data: bytes) -> bytes:
    return encode(Image.open(io.BytesIO(data)).convert("RGB"), "JPEG", quality=92)
