"""Each stage alone on all cores, with the code of the job: what it could reach if nothing got in its way."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import Any

from jobs.machine import cores

STAGES = ("fetch", "decode", "route", "features", "score", "write", "render")
MODELS = ("route", "features", "score")
ON_GPU = (*MODELS, "copy")
ROWS = 60
PATIENCE = 300


def stages(device: str) -> tuple[str, ...]:
    """The stages that are measured on a device; to a GPU, pictures are copied."""
    return (*STAGES, "copy") if device == "cuda" else STAGES


def together(rates: dict[str, float]) -> float:
    """Images/s of a machine that loses nothing.

    Without a GPU an image costs what its stages cost; with one, the slowest of decoding, copying and models (of one
    process, one after the other) sets the pace.
    """
    return min(_beside_a_gpu(rates).values()) if "copy" in rates else 1 / sum(1 / rate for rate in rates.values())


def limiting(rates: dict[str, float]) -> str:
    """What sets the pace of such a machine."""
    beside = _beside_a_gpu(rates) if "copy" in rates else rates
    return min(beside, key=lambda stage: beside[stage])


def _beside_a_gpu(rates: dict[str, float]) -> dict[str, float]:
    return {
        "decode": rates["decode"],
        "copy": rates["copy"],
        "models": 1 / sum(1 / rates[stage] for stage in MODELS),
    }


class Roofs:
    """A process for each core that holds the stages, and takes images through one of them when it is asked to.

    They stay between the measurements, so that one can be as short as a second. A GPU belongs to the first of them.
    To be used in a ``with`` statement, which ends them.
    """

    def __init__(self, bundle: Path, manifest: Path, precision: str, work: Path, device: str = "cpu"):
        self.stages = stages(device)
        self.found: list[dict[str, float]] = []
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(cores())
        self.pipes, self.processes = [], []
        for number in range(cores()):
            here, there = context.Pipe()
            measured = [stage for stage in self.stages if not number or device == "cpu" or stage not in ON_GPU]
            arguments = (measured, bundle, manifest, precision, work / f"{number}", device, barrier, there)
            self.pipes.append(here)
            self.processes.append(context.Process(target=_work, args=arguments, daemon=True))
            self.processes[-1].start()
            there.close()
        for pipe in self.pipes:
            _received(pipe)

    def measure(self, seconds: float) -> None:
        """Images/s of each stage while every core does nothing else, each measured for so many seconds."""
        self.found.append({})
        for stage in self.stages:
            for pipe in self.pipes:
                pipe.send((stage, seconds))
            self.found[-1][stage] = float(sum(map(_received, self.pipes)))

    def rates(self) -> dict[str, float]:
        """Mean of the measurements, by stage."""
        return {stage: mean(one[stage] for one in self.found) for stage in self.stages}

    def __enter__(self) -> Roofs:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _received(pipe: Any) -> Any:
    if not pipe.poll(PATIENCE):
        raise TimeoutError(f"a process that measures roofs has not answered for {PATIENCE} s")
    return pipe.recv()


def _work(
    measured: list[str], bundle: Path, manifest: Path, precision: str, work: Path, device: str, barrier: Any, pipe: Any
) -> None:
    steps = {stage: _step(stage, bundle, manifest, precision, work / stage, device) for stage in measured}
    pipe.send("ready")
    while True:
        try:
            stage, seconds = pipe.recv()
        except EOFError:
            return
        step = steps.get(stage)
        if step is not None:
            step()
        barrier.wait(PATIENCE)
        if step is None:
            pipe.send(0.0)
            continue
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            done += step()
        pipe.send(done / (time.perf_counter() - start))


def _step(
    stage: str, bundle_folder: Path, manifest: Path, precision: Any, work: Path, device: str = "cpu"
) -> Callable[[], int]:
    """A function that takes some images through one stage and returns how many."""
    import pyarrow.parquet as pq
    import torch

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
    files = _files(tuple(row["uri"] for row in rows))
    if stage == "decode":
        return lambda: len([decode(files[following()])])
    bundle = _bundle(bundle_folder)
    if stage in ("write", "render"):
        return _writing(
            bundle, _extractor(bundle_folder, "cpu", bundle.precision), rows, files, work, stage == "render"
        )
    extractor = _extractor(bundle_folder, device, precision)
    if stage == "score":
        return _scoring(bundle, extractor, precision, rows, files)
    lots = [
        torch.stack([torch.from_numpy(decode(data).pixels.copy()) for data in lot])
        for lot in in_lots(files, extractor.micro_batch)
    ]
    if stage == "copy":
        return _whole(lots, lambda pixels: pixels.to(device))
    with torch.inference_mode():
        pictures = [normalise(pixels.to(device), extractor.dtype) for pixels in lots]
    if stage == "features":
        through = extractor.backbone
    else:
        pictures = [pixels.to(device) for pixels in lots]

        def through(pixels: torch.Tensor) -> torch.Tensor:
            return extractor.router(normalise(pixels, extractor.dtype)).float().softmax(1)

    images = cycle(pictures)

    @torch.inference_mode()
    def model_some() -> int:
        some = next(images)
        through(some)
        return len(some)

    return _whole(pictures, torch.inference_mode()(through)) if device == "cuda" else model_some


# Each process has these once, for all its stages.
@cache
def _files(uris: tuple[str, ...]) -> list[bytes]:
    return [Path(uri).read_bytes() for uri in uris]


@cache
def _extractor(folder: Path, device: str, precision: Any) -> Any:
    return _bundle(folder).extractor(device, precision)


@cache
def _bundle(folder: Path) -> Any:
    from jobs.bundles import read_bundle

    return read_bundle(str(folder))


def _whole(lots: list[Any], through: Callable[[Any], Any]) -> Callable[[], int]:
    """All lots through something on a GPU, which works on them while others are handed over."""
    import torch

    def step() -> int:
        for lot in lots:
            through(lot)
        torch.cuda.synchronize()
        return sum(map(len, lots))

    return step


def _scoring(
    bundle: Any, extractor: Any, precision: Any, rows: list[dict[str, Any]], files: list[bytes]
) -> Callable[[], int]:
    """All images of a category in one call, one category after the other, as the job does."""
    from anomaly_core.preprocess import decode

    images: dict[str, list[Any]] = {}
    for row, data in zip(rows, files, strict=True):
        routed = extractor(decode(data).pixels[None])
        layers = tuple(layer.to(extractor.device) for layer in (routed.layer2, routed.layer3))
        images.setdefault(row["declared_category"], []).append(layers)

    def call(category: str, of_one: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        scorer = bundle.scorer(category, extractor.device, precision)
        lacking = -len(of_one) % scorer.at_once  # a scorer would fill them up with zeros
        layer2, layer3 = zip(*of_one, *[of_one[0]] * lacking, strict=True)
        return scorer, list(layer2), list(layer3)

    calls = cycle([call(category, of_one) for category, of_one in images.items()])

    def score_some() -> int:
        scorer, layer2, layer3 = next(calls)
        return len(scorer(layer2, layer3).score)

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
    work.mkdir(parents=True, exist_ok=True)
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
