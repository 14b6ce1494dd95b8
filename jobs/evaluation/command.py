"""``line-audit evaluate``: test images through a bundle, to tables, a report and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from anomaly_core.bundle import Bundle
from anomaly_core.device import resolve_device
from anomaly_core.forms import BackboneForm
from jobs.audit import exits
from jobs.bundles import read_bundle, run_precision
from jobs.evaluation.figures import Evaluation, evaluate
from jobs.evaluation.images import EvaluationError, TestImage, find_test_images
from jobs.evaluation.judge import Judged, judge
from jobs.evaluation.misses import OVERLAYS, is_overlay, picture, worst_misses
from jobs.evaluation.report import page
from jobs.evaluation.tables import images_table, markdown, metrics_table, tables
from jobs.listing import names_below
from jobs.storage import delete, prune, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, console, note, output, print_tables
from jobs.uris import join, normal, parent


@dataclass(frozen=True)
class Settings:
    """What an evaluation is asked to do. worst: pictures of either kind of miss in each category."""

    bundle: str
    images: str
    output: str
    categories: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "auto"
    min_confidence: float = 0.5
    worst: int = 6
    backbone_weights: str | None = None
    backbone_form: BackboneForm | None = None


def evaluate_command(settings: Settings) -> int:
    """Evaluate a bundle; returns the exit code: 0, 2 usage or bad images, 4 storage, 130 interrupted."""
    try:
        found, warnings = run_evaluation(settings)
    except (EvaluationError, ValueError) as error:  # BundleError is a ValueError
        complain(str(error))
        return exits.USAGE
    except StorageAccessError as error:
        complain(str(error))
        return exits.NO_ACCESS
    except KeyboardInterrupt:
        complain("interrupted; nothing was written")
        return exits.INTERRUPTED
    for warning in warnings:
        note(warning)
    print_tables(tables(found))
    target = normal(settings.output)
    output.print(f"report: {join(target, 'report.html')}", markup=False, soft_wrap=True)
    files = "evaluation.md, evaluation.json, metrics.parquet, images.parquet"
    output.print(f"the same as Markdown, JSON and Parquet beside it: {files}", markup=False, soft_wrap=True)
    return exits.COMMITTED


def run_evaluation(settings: Settings) -> tuple[Evaluation, list[str]]:
    """Evaluate and write all files; evaluation.json comes last. Returns the figures and warnings.

    Raises EvaluationError, BundleError, StorageAccessError.
    """
    device = resolve_device(settings.device)
    bundle = read_bundle(settings.bundle, settings.backbone_weights, settings.backbone_form)
    precision, warnings = run_precision(bundle, settings.precision, device)
    images, astray = find_test_images(normal(settings.images), settings.categories)
    if not {image.category for image in images} & set(bundle.categories):
        raise EvaluationError(
            f"{settings.images}: none of its categories is in the bundle, which has {', '.join(bundle.categories)}"
        )
    with _progress() as bar:
        task = bar.add_task("images", total=len(images))
        judged = list(
            judge(bundle, images, device, precision, settings.min_confidence, lambda n: bar.update(task, completed=n))
        )
        found = evaluate(judged, bundle.thresholds, lambda name: bar.update(task, description=f"figures of {name}"))
        bar.update(task, description="writing")
        about = {
            "Bundle": f"{normal(settings.bundle)} ({bundle.digest[:12]})",
            "Images": f"{normal(settings.images)}, {len(images):,} images",
            "Thresholds": _rule(bundle),
            "Models": f"{precision} on {device}",
            "Review": "never (the reference's rule)"
            if bundle.reference
            else f"below a routing confidence of {settings.min_confidence:g}",
        }
        _write(settings, bundle, judged, found, about)
    return found, [*bundle.warnings, *warnings, *_astray(astray), *_lacking(images)]


def _rule(bundle: Bundle) -> str:
    if bundle.manifest is None:
        return "given with the bundle"
    return f"{bundle.manifest.threshold_rule}, {bundle.manifest.calibrated_on.replace('_', ' ')}"


def _astray(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    return [f"{len(paths)} images are left out: not at <category>/test/<defect>/<name>, such as {paths[0]}"]


def _lacking(images: Sequence[TestImage]) -> list[str]:
    bare = [image for image in images if image.defective and image.mask is None]
    if not bare or len(bare) == sum(image.defective for image in images):
        return []
    return [f"{len(bare)} defective images have no mask, such as {bare[0].path}; figures of pixels leave them out"]


def _write(settings: Settings, bundle: Bundle, judged: list[Judged], found: Evaluation, about: dict[str, str]) -> None:
    put: Callable[[str, bytes], None] = lambda name, data: write_bytes(join(normal(settings.output), name), data)  # noqa: E731
    misses = [
        (miss, picture(miss, bundle.thresholds[miss.judged.image.category], bundle.preprocessing))
        for miss in worst_misses(judged, bundle.thresholds, settings.worst)
    ]
    for miss, png in misses:
        put(miss.file, png)
    _remove_others(join(normal(settings.output), OVERLAYS), {miss.file for miss, _ in misses})
    put("images.parquet", _parquet(images_table(judged)))
    put("metrics.parquet", _parquet(metrics_table(found)))
    put("evaluation.md", markdown(found, about).encode())
    put("report.html", page(found, judged, bundle.thresholds, misses, about).encode())
    content = {"bundle_digest": bundle.digest, "about": about, **asdict(found)}
    put("evaluation.json", (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _remove_others(folder: str, files: set[str]) -> None:
    """The overlays of an earlier evaluation in the same output; what does not have the name of one is not ours."""
    for name in list(names_below(folder)):
        if is_overlay(f"{OVERLAYS}/{name}") and f"{OVERLAYS}/{name}" not in files:
            delete(join(folder, name))
            prune(parent(join(folder, name)), levels=2)


def _parquet(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=not console.is_terminal)
