"""``make bench``: every figure in one run on one machine, as a table and as JSON. Nothing here asserts a time."""

from __future__ import annotations

import io
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from anomaly_core.device import resolve_device, resolve_precision
from anomaly_core.forms import Precision
from jobs.machine import cores
from jobs.storage import scratch
from tests.anomaly_core.files import encode
from tests.bench.accuracy import accuracy
from tests.bench.archive import Source, source, write_archive, write_bundle
from tests.bench.job import audit, enough, in_turns
from tests.bench.roofs import MODELS, Roofs, limiting, together
from tests.bench.scale import long_manifest
from tests.bench.startup import start_up
from tests.conftest import shared_root

console = Console(width=120)


@dataclass(frozen=True)
class Asked:
    """What was asked for. work: a folder of our own; the rest as in ``main``."""

    work: Path
    images: int
    repeats: int
    seconds: float
    device: str
    precision: Precision
    bundle: Path | None

    def prepared(self, pictures: Source, name: str, count: int, suffix: str = "png") -> tuple[Path, Path]:
        """Folder of a bundle, and manifest of an archive of so many images, both below ``name``."""
        write_bundle(self.work / name / "bundle", pictures.images, self.precision)
        return self.work / name / "bundle", write_archive(self.work / name / "archive", pictures, count, suffix)


def _throughput(asked: Asked, format: str = "png") -> dict[str, Any]:
    pictures = source(format)
    folder, images = asked.work / format, asked.images
    bundle, manifest = asked.prepared(pictures, format, images, format)
    roofs, jobs, ways, ratios = [], [], {"dataloader": [], "reference": []}, []
    for _ in range(asked.repeats):
        with Roofs(bundle, manifest, asked.precision, folder / "roof", asked.device) as alone:
            # In turns with the job, which is stopped meanwhile: a machine that shares its processors with others is
            # now faster, now slower.
            ran = audit(bundle, manifest, folder / "out", images, pause=partial(alone.measure, asked.seconds))
        jobs.append(ran.detail())
        roofs.append(alone.rates())
        ratios.append(jobs[-1]["images_per_second"] / together(roofs[-1]))
        console.print(
            f"roof {together(roofs[-1]):.1f} of {[round(together(one), 1) for one in alone.found]}, job "
            f"{jobs[-1]['images_per_second']:.1f}: {ratios[-1]:.3f}",
            style="dim",
        )
        ways["dataloader"].append(_way("dataloader", folder, manifest, images))
        ways["reference"].append(_way("reference", folder, manifest, min(images, 200)))
    rates = {stage: median(one[stage] for one in roofs) for stage in roofs[0]}
    job = median(one["images_per_second"] for one in jobs)
    loop, plain = (median(one["images"] / one["seconds"] for one in ways[way]) for way in ("dataloader", "reference"))
    models = 1 / sum(1 / rates[stage] for stage in MODELS)
    plain_models = median(one["images"] / one["model_seconds"] for one in ways["reference"])
    found = {
        "images": pictures.origin,
        "roofs": rates,
        "roof": together(rates),
        "limiting": limiting(rates),
        "roof_each_time": [round(together(one), 1) for one in roofs],
        "job": job,
        "job_of_roof": median(ratios),
        "job_of_roof_by_repeat": [round(ratio, 3) for ratio in ratios],
        "dataloader_loop": loop,
        "job_to_dataloader": job / loop,
        "reference_way": plain,
        "job_to_reference": job / plain,
        "models_alone": models,
        "models_to_reference": models / plain_models,
        "job_detail": jobs,
    }
    table = Table(title=f"{pictures.origin}, {asked.precision}", title_justify="left")
    table.add_column("what")
    table.add_column("images/s", justify="right")
    for stage, rate in rates.items():
        table.add_row(f"roof: {stage} alone", f"{rate:.1f}")
    for name, rate in (
        ("roof: all stages together" if asked.device == "cpu" else "roof: the slowest", found["roof"]),
        ("job, steady", job),
        ("job, with start and end", median(one["with_start_and_end"] for one in jobs)),
        ("plain DataLoader loop, steady", loop),
        ("the reference's way, steady", plain),
    ):
        table.add_row(name, f"{rate:.1f}")  # type: ignore[str-bytes-safe]
    console.print(table)
    console.print(
        f"job / roof {found['job_of_roof']:.3f} {found['job_of_roof_by_repeat']}, roofs {found['roof_each_time']}; "
        f"job / DataLoader {found['job_to_dataloader']:.2f}; job / reference {found['job_to_reference']:.2f}; models "
        f"alone / reference {found['models_to_reference']:.2f}; limiting: {found['limiting']}"
    )
    return found


def _jpeg(asked: Asked) -> dict[str, Any]:
    return _throughput(asked, "jpeg")


def _way(way: str, folder: Path, manifest: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.baselines", way, str(folder / "bundle"), str(manifest)]
    run = subprocess.run([*command, str(folder / way), str(count)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def _s3(asked: Asked) -> dict[str, Any]:
    from tests.bench.object_store import on_loopback

    return on_loopback(asked.work, asked.images, asked.repeats, asked.precision, console)


def _grouping(asked: Asked) -> dict[str, Any]:
    bundle, manifest = asked.prepared(source("png"), "png", asked.images)
    output = asked.work / "out"
    actors, own = (
        [ran.detail() for ran in runs]
        for runs in in_turns(
            asked.repeats,
            lambda: audit(bundle, manifest, output, asked.images),
            lambda: audit(bundle, manifest, output, asked.images, "--scoring", "extractor"),
        )
    )
    rates = [[one["images_per_second"] for one in runs] for runs in (actors, own)]
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    console.print(
        f"category actors {median(rates[0]):.1f} images/s, scoring in the extracting actors "
        f"{median(rates[1]):.1f}: {median(ratios):.3f} {[round(r, 3) for r in ratios]}"
    )
    return {"actors": actors, "extractor": own, "actors_to_extractor": median(ratios)}


def _startup(asked: Asked) -> dict[str, Any]:
    bundle, manifest = asked.prepared(source("png"), "start", 300)
    found = start_up(bundle, manifest, asked.work / "out", asked.repeats)
    console.print(
        f"from command to first scored row: {found['audit']:.1f} s; first row of an empty pipeline: "
        f"{found['empty_pipeline']:.1f} s"
    )
    return found


def _memory(asked: Asked) -> dict[str, Any]:
    """Small images, so that 10,000 take minutes: what is held between the stages is 224 x 224 in any case."""
    pictures = source("png")
    small = Source(tuple((category, _shrunk(data)) for category, data in pictures.images), pictures.origin)
    bundle, manifest = asked.prepared(small, "small", 10_000)
    found = {}
    for count in (1_000, 10_000):
        ran = audit(bundle, manifest, asked.work / "out", count, "--heatmaps", "none", watch=True)
        found[str(count)] = {"private": ran.private, "object_store": ran.shared, "by_kind": ran.private_by_kind}
        console.print(
            f"{count:,} images: private {ran.private / 2**20:,.0f} MiB, object store {ran.shared / 2**20:,.0f} MiB, "
            f"{ {kind: round(size / 2**20) for kind, size in ran.private_by_kind.items()} }"
        )
    return found


def _shrunk(data: bytes) -> bytes:
    return encode(Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224)), "PNG")


def _scale(asked: Asked) -> dict[str, Any]:
    found = {}
    for rows in (100_000, 1_000_000):
        one = found[str(rows)] = long_manifest(asked.work / f"rows-{rows}", rows)
        console.print(
            f"{rows:,} rows: freeze {one['freeze_seconds']} s, plan {one['plan_seconds']} s, commit "
            f"{one['commit_seconds']} s, peak memory {one['memory_freeze'] / 2**20:,.0f} MiB "
            f"freezing, {one['memory_commit'] / 2**20:,.0f} committing, {one['memory_before'] / 2**20:,.0f} before"
        )
    return found


def _accuracy(asked: Asked) -> dict[str, Any]:
    root = shared_root()
    if root is None or asked.bundle is None:
        console.print("skipped: it needs the real images (LINE_AUDIT_SHARED) and a bundle trained on them (--bundle)")
        return {"skipped": True}
    found = accuracy(asked.bundle, root / "data" / "mvtec224")
    for category, one in found["categories"].items():
        console.print(category, one)
    console.print(
        f"{found['decisions_that_differ']} of {found['images']} decisions differ between bfloat16 and plain float32, "
        f"at |score / T - 1| of {found['their_distance_from_the_threshold']}"
    )
    return found


SECTIONS = {
    "throughput": _throughput,
    "jpeg": _jpeg,
    "s3": _s3,
    "grouping": _grouping,
    "startup": _startup,
    "memory": _memory,
    "scale": _scale,
    "accuracy": _accuracy,
}


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Section to run; repeat: {', '.join(SECTIONS)}.")] = None,
    images: Annotated[int, typer.Option(help="Images of a run, more if the machine needs them.")] = 2000,
    repeats: Annotated[int, typer.Option(help="How often each measurement is made.")] = 3,
    seconds: Annotated[float, typer.Option(max=3.0, help="How long a roof is measured in a pause.")] = 1.0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16, or auto.")] = "auto",
    bundle: Annotated[Path | None, typer.Option(help="A trained bundle, for the section accuracy.")] = None,
    output: Annotated[Path, typer.Option(help="Where bench.json goes.")] = Path("bench-output"),
) -> None:
    """Run the benchmarks."""
    device = resolve_device()
    chosen = resolve_precision(precision, device)
    # Two shards for every extractor, of which there is one for a GPU or for two cores.
    count = max(images, enough(2 * max(torch.cuda.device_count(), -(-cores() // 2))))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was stopped for a measurement is ended, not left
    output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": _machine(), "device": device, "precision": chosen}
    with scratch() as work:
        for section in only or SECTIONS:
            console.rule(section)
            report[section] = SECTIONS[section](Asked(work, count, repeats, seconds, device, chosen, bundle))
            (output / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"figures in {output / 'bench.json'}")


if __name__ == "__main__":
    typer.run(main)
