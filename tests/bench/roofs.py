"""Each stage alone on all cores, with the code of the job: what it could reach if nothing got in its way."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from jobs.machine import cores

STAGES = ("fetch", "decode", "route", "features", "score", "write", "render")
ROWS = 60


def stage_rates(bundle: Path, manifest: Path, precision: str, work: Path, seconds: float) -> dict[str, float]:
    """Images/s of each stage when every core has one process that does nothing else."""
    return {stage: _rate(stage, bundle, manifest, precision, work, seconds) for stage in STAGES}


def together(rates: dict[str, float]) -> float:
    """Images/s of a machine without GPU that loses nothing: an image costs what its stages cost."""
    return 1 / sum(1 / rate for rate in rates.values())


def _rate(stage: str, bundle: Path, manifest: Path, precision: str, work: Path, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    results, go = context.Queue(), context.Event()
    arguments = (stage, bundle, manifest, precision, work, seconds, results, go)
    processes = [context.Process(target=_work, args=arguments) for _ in range(cores())]
    for process in processes:
        process.start()
    for _ in processes:
        results.get(timeout=300)
    go.set()
    rates = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return float(sum(rates))


def _work(
    stage: str, bundle: Path, manifest: Path, precision: str, work: Path, seconds: float, results: Any, go: Any
) -> None:
    step = _step(stage, bundle, manifest, precision, work / f"{stage}-{os.getpid()}")
    step()
    results.put("ready")
    go.wait()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        done += step()
    results.put(done / (time.perf_counter() - start))


def _step(stage: str, bundle_folder: Path, manifest: Path, precision: Any, work: Path) -> Callable[[], int]:
    """A function that takes some images through one stage and returns how many."""
    import pyarrow.parquet as pq
    import torch

    from anomaly_core.bundle import load_bundle
    from anomaly_core.preprocess import decode, normalise
    from jobs.access import AllowList
    from jobs.audit.fetch import fetch
    from jobs.audit.load import in_lots

    torch.set_num_threads(1)
    rows = pq.read_table(manifest).slice(0, ROWS).to_pylist()
    allowed = AllowList.of(str(manifest), ())
    position = [0]

    def following() -> int:
        position[0] = (position[0] + 1) % len(rows)
        return position[0]

    if stage == "fetch":

        def fetch_one() -> int:
            data = fetch(rows[following()]["uri"], allowed, 2**26).data
            hashlib.sha256(data).hexdigest()
            return 1

        return fetch_one
    files = [Path(row["uri"]).read_bytes() for row in rows]
    if stage == "decode":
        return lambda: len([decode(files[following()])])
    bundle = load_bundle({path.name: path.read_bytes() for path in bundle_folder.iterdir() if path.is_file()})
    extractor = bundle.extractor("cpu", precision)
    if stage in ("route", "features"):
        lots = [
            torch.stack([torch.from_numpy(decode(data).pixels.copy()) for data in lot])
            for lot in in_lots(files, extractor.micro_batch)
        ]

        with torch.inference_mode():
            images = cycle(lots if stage == "route" else [normalise(pixels, extractor.dtype) for pixels in lots])

        @torch.inference_mode()
        def route_some() -> int:
            pixels = next(images)
            extractor.router(normalise(pixels, extractor.dtype)).float().softmax(1)
            return len(pixels)

        @torch.inference_mode()
        def extract_some() -> int:
            some = next(images)
            extractor.backbone(some)
            return len(some)

        return route_some if stage == "route" else extract_some
    if stage == "score":
        return _scoring(bundle, extractor, precision, rows, files)
    return _writing(bundle, extractor, rows, files, work, pictures=stage == "render")


def _scoring(
    bundle: Any, extractor: Any, precision: Any, rows: list[dict[str, Any]], files: list[bytes]
) -> Callable[[], int]:
    """All images of a category in one call, one category after the other, as the job does."""
    from anomaly_core.preprocess import decode

    images: dict[str, list[Any]] = {}
    for row, data in zip(rows, files, strict=True):
        routed = extractor(decode(data).pixels[None])
        images.setdefault(row["declared_category"], []).append((routed.layer2, routed.layer3))
    calls = cycle([(bundle.scorer(category, "cpu", precision), of_one) for category, of_one in images.items()])

    def score_some() -> int:
        scorer, layers = next(calls)
        return sum(len(scorer(layer2, layer3).score) for layer2, layer3 in layers)

    return score_some


def _writing(
    bundle: Any, extractor: Any, rows: list[dict[str, Any]], files: list[bytes], work: Path, pictures: bool
) -> Callable[[], int]:
    import numpy as np
    import pyarrow as pa

    from anomaly_core.preprocess import decode
    from jobs.audit.extract import DECIDED
    from jobs.audit.load import LOADED
    from jobs.audit.render import render
    from jobs.audit.write import Write
    from manifests.schema import frozen_schema
    from tests.jobs.audit.stages import Deaf, write_settings

    decided = []
    for i, (row, data) in enumerate(zip(rows, files, strict=True)):
        picture = decode(data)
        category = row["declared_category"]
        routed = extractor(picture.pixels[None])
        scored = bundle.scorer(category, "cpu", bundle.precision)(routed.layer2, routed.layer3)
        score, threshold = float(scored.score[0]), bundle.thresholds[category]
        decided.append(
            {
                "row": i, "shard": 0, "image_id": f"{i:032x}", "uri": row["uri"], "declared_category": category,
                "attempts": 1, "width": picture.width, "height": picture.height, "pixels": picture.pixels.tobytes(),
                "category": category, "score": score, "threshold": threshold, "margin": score / threshold,
                "decision": "anomalous" if score >= threshold else "normal",
                "error_map": scored.error_map[0].ravel().astype(np.float16),
            }
        )  # fmt: skip
    work.mkdir(parents=True)
    if pictures:
        settings = write_settings(work, {}, "anomalous").render

        def render_some() -> int:
            render(decided, settings)
            return len(decided)

        return render_some
    schema = pa.schema([*frozen_schema(pa.schema([])), *LOADED, *DECIDED])
    table = pa.Table.from_pylist(decided, schema=schema)
    write = Write(write_settings(work, {0: len(decided)}), Deaf())

    def write_some() -> int:
        write(table)
        return len(decided)

    return write_some
