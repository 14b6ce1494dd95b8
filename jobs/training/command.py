"""``line-audit train`` and ``add-category``: progress bars, a table at the end, the exit code."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from anomaly_core.bundle_manifest import BundleManifest
from anomaly_core.calibration import ThresholdRule
from anomaly_core.known import LEAST
from jobs.audit import exits
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, console, output
from jobs.training.add import Addition, add_category
from jobs.training.board import Board
from jobs.training.config import TrainingConfig, TrainingError
from jobs.training.train import elapsed, train
from jobs.weights import WeightsError

Result = TypeVar("Result")
# Accuracy of a router on its own training images, below which the person is told.
ROUTES_WELL = 0.9
# Scores of normal images, below which a threshold is hardly more than a guess, and the person is told.
SCORES_ENOUGH = 20


def train_command(settings: dict[str, Any]) -> int:
    """Train from settings as typed; returns the exit code: 0, 1 unexpected, 2 usage, 4 storage, 130 interrupted."""
    try:
        config = TrainingConfig(**settings)
    except ValidationError as error:
        for problem in error.errors():
            complain(f"--{str(problem['loc'][0]).replace('_', '-')} {problem['input']}: {problem['msg']}")
        return exits.USAGE
    start = time.monotonic()

    def work() -> None:
        print_bundle(_with_progress(lambda watch: train(config, watch)))
        output.print(f"the bundle is in {config.output}, after {elapsed(start)}", markup=False, soft_wrap=True)

    return _ended(work)


def add_command(asked: Addition) -> int:
    """Add categories to a bundle; returns the exit code, as ``train_command``."""
    start = time.monotonic()

    def work() -> None:
        added = _with_progress(lambda watch: add_category(asked, watch))
        print_bundle(added.manifest)
        names = ", ".join(added.categories)
        output.print(
            f"added {names}; training images that are routed right: {added.new_routed:,} of {added.new_of:,} of the "
            f"new categories; of the others {added.routed_before:,} of {added.of:,} before, {added.routed_after:,} now "
            "(their autoencoders and thresholds are as they were)",
            markup=False,
            soft_wrap=True,
        )
        if added.routed_after < added.routed_before:
            output.print("warning: routing of the others got worse", style="yellow", soft_wrap=True)
        output.print(f"the bundle is in {asked.output}, after {elapsed(start)}", markup=False, soft_wrap=True)

    return _ended(work)


def _ended(work: Callable[[], None]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        work()
    except KeyboardInterrupt:
        complain("interrupted; the same command begins again only what was not finished")
        return exits.INTERRUPTED
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, StorageAccessError):
            complain(str(cause))
            return exits.NO_ACCESS
        if isinstance(cause, TrainingError | WeightsError | ValueError):
            complain(str(cause))
            return exits.USAGE
        traceback.print_exc()
        complain(str(cause).splitlines()[-1] if str(cause) else type(cause).__name__)
        return exits.FAILED
    return exits.COMMITTED


def _with_progress(work: Callable[[Callable[[Board], None]], Result]) -> Result:
    columns = (
        TextColumn("{task.description:<24}"),
        TextColumn("{task.fields[stage]:<16}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        lines: dict[str, TaskID] = {}
        said: dict[str, tuple[str, int]] = {}

        def watch(board: Board) -> None:
            for name, (stage, done, total) in board.items():
                if not console.is_terminal and said.get(name) != (stage, quarter := 4 * done // max(total, 1)):
                    # in a log, a line for each quarter of a stage
                    console.print(f"{name}: {stage}" + (f" {done} of {total}" if total > 1 else ""), markup=False)
                    said[name] = (stage, quarter)
                if name not in lines:
                    lines[name] = progress.add_task(name, stage=stage, total=total)
                progress.update(lines[name], stage=stage, completed=done, total=total)

        return work(watch)


def print_bundle(manifest: BundleManifest) -> None:
    """What was trained, as a table, and what is doubtful about it."""
    table = Table(title=f"bundle: recipe {manifest.recipe['name']}, {manifest.precision}", title_justify="left")
    trained = any(len(info.losses) > 1 for info in manifest.training.values())  # else set in closed form
    losses = ["loss first", "loss best", "epoch kept"] if trained else ["loss"]
    table.add_column("category", no_wrap=True)
    for heading in ("images", *losses, "threshold", "promised", "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    for category, info in manifest.training.items():
        losses = [f"{min(info.losses):.4g}"]
        if trained:
            losses = [f"{info.losses[0]:.4g}", *losses, f"{info.best_epoch + 1} of {len(info.losses)}"]
        promised = info.promised_false_rejects
        told = "nothing" if promised is None else f"{100 * promised:.2g} %"
        table.add_row(category, str(info.images), *losses, f"{info.threshold:.4g}", told, f"{info.seconds:.1f}")
    output.print(table)
    _print_rule(manifest)
    _print_few_scores(manifest)
    router = manifest.router
    output.print(
        f"router: accuracy on its training images {router.training_accuracy:.4f}, {router.seconds:.1f} s, "
        f"from {router.source}; backbone {manifest.backbone.form} from {manifest.backbone.source}",
        markup=False,
        soft_wrap=True,
    )
    few = [category for category, info in manifest.training.items() if info.images < LEAST]
    if few:
        output.print(
            f"warning: products that the bundle does not know cannot be told: fewer than {LEAST} images of "
            f"{', '.join(few)}",
            style="yellow",
            soft_wrap=True,
        )
    if router.training_accuracy is not None and router.training_accuracy < ROUTES_WELL:
        output.print(
            f"warning: the router names the category of only {100 * router.training_accuracy:.0f} % of the images that "
            "it was trained on, and an audit scores what is misrouted with another category's autoencoder: train on "
            "more images, start from ImageNet weights (--router-weights), or audit with --trust-declared",
            style="yellow",
            soft_wrap=True,
        )


def _print_rule(manifest: BundleManifest) -> None:
    rule = ThresholdRule.parse(manifest.threshold_rule)
    if rule.false_rejects is None:
        return
    asked = float(rule.false_rejects)
    weaker = {
        category: info.promised_false_rejects
        for category, info in manifest.training.items()
        if info.promised_false_rejects is not None and info.promised_false_rejects > asked
    }
    output.print(
        f"promised: the share of good parts that will be rejected, at most, on average over trainings ({rule})",
        soft_wrap=True,
    )
    if weaker:
        names = ", ".join(f"{category} {100 * share:.2g} %" for category, share in weaker.items())
        output.print(
            f"warning: too few normal images to promise {100 * asked:g} %; the smallest share that "
            f"they support was taken: {names}",
            style="yellow",
            soft_wrap=True,
        )


def _print_few_scores(manifest: BundleManifest) -> None:
    counts = {category: len(info.calibration_scores) for category, info in manifest.training.items()}
    if few := [f"{category} {count}" for category, count in counts.items() if count < SCORES_ENOUGH]:
        output.print(
            f"warning: thresholds rest on the scores of few normal images ({', '.join(few)}): defects may pass, or "
            "good parts be rejected; train on more images, and see what evaluate says",
            style="yellow",
            soft_wrap=True,
        )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
