"""Recipes compared: ``python -m tests.bench.recipes``. Choices are made on synthetic defects, never on test images.

Of each category a fifth of the normal training images is held out. Synthetic defects are drawn on them, and a recipe is
as good as the area under the ROC curve between held-out images and the same with a defect. ``--test`` tells the figures
on the test images instead, of recipes that were chosen before: trained and calibrated on all normal images as ``train``
does, beside the nearest neighbour among the training patches. Features are kept in ``--cache``; remove it when they
change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.table import Table

from anomaly_core.cae import load_cae
from anomaly_core.cae_training import fit_cae, residual_weights
from anomaly_core.calibration import ThresholdRule
from anomaly_core.device import DTYPES, resolve_precision
from anomaly_core.features import Chosen, assemble, load_backbone
from anomaly_core.forms import Precision
from anomaly_core.metrics import decided, image_auroc
from anomaly_core.pixel_metrics import aupro, pixel_auroc
from anomaly_core.preprocess import SIZE, Preprocessing, decode
from anomaly_core.scoring import CategoryScorer, score_maps, upsample
from anomaly_core.training import Fitted, extract_layers, parted, split
from jobs.evaluation.figures import by_threshold
from jobs.evaluation.images import read_mask
from jobs.machine import cores
from jobs.training.fits import SCORE, fit_and_calibrate
from jobs.training.tasks import TaskSettings
from tests.bench.candidates import CANDIDATES, Way
from tests.bench.defects import KINDS, draw
from tests.conftest import shared_root

CATEGORIES = ("bottle", "pill", "screw")
WEIGHTS = "weights/resnet50_v1_caffe_imagenet_conv1_to_layer3.pth"
HELD_OUT = 0.2
BANK = 20_000
NEIGHBOUR = "nearest neighbour"
console = Console(width=150)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_fits: dict[Any, Fitted] = {}
Layers = tuple[torch.Tensor, torch.Tensor]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Images:
    """Features of one category: of its normal images, with the indices of those that are held out; of synthetic defects
    on these with their kinds; of the test images with their truth and masks, bool (N, 224, 224)."""

    normal: Layers
    held: list[int]
    drawn: Layers
    kinds: list[str]
    test: Layers
    defective: list[bool]
    masks: torch.Tensor


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes (default: all).")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of the training.")] = 1,
    first: Annotated[int, typer.Option("--first-seed", help="The first of them.")] = 0,
    test: Annotated[
        bool, typer.Option("--test", help="Tell the figures on the test images, of chosen recipes.")
    ] = False,
    cache: Annotated[Path, typer.Option(help="Where features are kept.")] = Path("bench-output/recipes"),
) -> None:
    """Print the table of recipes."""
    root = shared_root()
    if root is None:
        raise typer.Exit(typer.echo("no real images and weights (LINE_AUDIT_SHARED)", err=True) or 2)
    precision = resolve_precision("auto", "cpu")
    for category in CATEGORIES:
        cached(category, root, cache, precision)
    chosen = list(names or CANDIDATES)
    keys = ("auroc", "pixel_auroc", "aupro", "rejects", "escapes") if test else ("mean",)
    found: dict[str, list[dict[str, Figures]]] = {
        name: [{} for _ in range(seeds)] for name in (*chosen, *([NEIGHBOUR] if test else []))
    }
    # The largest first; two fits with a thread each take two thirds of the time of one after the other with two.
    work = [(category, first + index) for index in range(seeds) for category in reversed(CATEGORIES)]
    with ProcessPoolExecutor(cores(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        asked = (list(found), test, root, cache, precision)
        tasks = {pool.submit(studied, *one, *asked): one for one in work}
        for task in as_completed(tasks):
            category, seed = tasks[task]
            for name, figures in task.result().items():
                found[name][seed - first][category] = figures
    cache.joinpath("test.json" if test else "screen.json").write_text(json.dumps(found, indent=1))
    show(found, keys)


def studied(
    category: str, seed: int, names: Sequence[str], test: bool, root: Path, cache: Path, precision: Precision
) -> dict[str, Figures]:
    """The figures of all recipes on one category with one seed; each is printed as it is known."""
    images = cached(category, root, cache, precision)
    found = {}
    for name in names:
        if name == NEIGHBOUR:
            found[name] = neighbour(images, seed)
        else:
            found[name] = (tested if test else judged)(images, CANDIDATES[name], precision, seed)
        console.print(f"{category}, seed {seed}, {name}: {found[name]}", style="dim", soft_wrap=True)
    return found


def judged(images: Images, way: Way, precision: Precision, seed: int) -> Figures:
    """AUROC by kind of synthetic defect, their mean, and seconds of the fit.

    The images that are held out are in two halves, and each is weighed by what is left in the other.
    """
    start, recipe, dtype = time.monotonic(), way.recipe, DTYPES[precision]
    kept = np.setdiff1d(np.arange(len(images.normal[0])), images.held)
    # Ways that only score differently share a fit.
    key = (id(images), replace(recipe, name="", weighting="none", layer2_weight=1.0), way.build, way.loss, seed)
    if key not in _fits:
        trained_by = {"device": "cpu", "precision": precision, "seed": seed, "build": way.build, "loss": way.loss}
        _fits[key] = fit_cae(*_some(images.normal, kept), recipe, **trained_by)
    fitted = _fits[key]
    seconds = time.monotonic() - start
    held, drawn = np.array(images.held), np.arange(len(images.kinds)).reshape(len(images.held), len(KINDS))
    normal, defective = np.empty(len(held)), np.empty(drawn.shape)
    halves = parted(len(held), 2, seed=0)
    for half, other in (halves, halves[::-1]):
        weights = None
        if recipe.weighting == "residual":
            cae = load_cae(fitted.state, "cpu", dtype)
            weights = residual_weights(cae, *_some(images.normal, held[other]), recipe.layer2_weight)
        scorer = CategoryScorer(load_cae(fitted.state, "cpu", dtype, weights), way.score, "cpu", dtype)
        normal[half] = scorer(*_rows(images.normal, held[half])).score
        defective[half] = scorer(*_rows(images.drawn, drawn[half].ravel())).score.reshape(-1, len(KINDS))
    figures: Figures = {}
    for index, kind in enumerate(KINDS):
        truth = [False] * len(held) + [True] * len(held)
        figures[kind] = image_auroc(truth, np.concatenate([normal, defective[:, index]]))
    return figures | {"mean": float(np.mean(list(figures.values()))), "seconds": seconds}


def tested(images: Images, way: Way, precision: Precision, seed: int) -> Figures:
    """Of the test images: AUROC, pixel AUROC, AUPRO; good parts rejected and defective ones passed at the threshold.

    Everything is fitted and calibrated as ``train`` does.
    """
    start = time.monotonic()
    settings = TaskSettings("", way.recipe, "cpu", precision, seed, "", Preprocessing())
    fitted, weights, calibration = fit_and_calibrate(*images.normal, settings, lambda stage: lambda done, total: None)
    seconds, dtype = time.monotonic() - start, DTYPES[precision]
    scorer = CategoryScorer(load_cae(fitted.state, "cpu", dtype, weights), SCORE, "cpu", dtype)
    scored = scorer(*images.test)
    threshold = ThresholdRule.parse(way.recipe.threshold_rule)(calibration).value
    rates = decided(images.defective, by_threshold(scored.score, threshold))
    counts = {"rejects": rates.false_rejects.count, "escapes": rates.escapes.count}
    return _figures(images, scored.score, torch.from_numpy(scored.error_map)) | counts | {"seconds": seconds}


def neighbour(images: Images, seed: int) -> Figures:
    """Of the test images, by the distance of each patch to the nearest of 20,000 random patches of the normal images
    (as PatchCore without its coreset: Roth et al. 2022), on the same features. The image's score is ours or, as there,
    that of the patch that is furthest away: whichever does better in the category."""
    start = time.monotonic()
    patches = rows(images.normal)
    bank = patches[torch.from_numpy(np.random.default_rng(seed).permutation(len(patches))[:BANK])].float()
    maps = []
    for index in range(0, len(images.test[0]), 4):
        some = rows((images.test[0][index : index + 4], images.test[1][index : index + 4]))
        maps.append(torch.cdist(some.float(), bank).min(dim=1).values.square().view(-1, 28, 28))
    together = torch.cat(maps)
    scores = (score_maps(together, SCORE)[0], together.amax(dim=(1, 2)).numpy())
    best = max(scores, key=lambda score: image_auroc(images.defective, score))
    return _figures(images, best, together) | {"seconds": time.monotonic() - start}


def _figures(images: Images, scores: npt.NDArray[np.float32], maps: torch.Tensor) -> Figures:
    masks, large = images.masks.numpy(), upsample(maps.float()).numpy()
    return {
        "auroc": image_auroc(images.defective, scores),
        "pixel_auroc": pixel_auroc(masks, large),
        "aupro": aupro(masks, large),
    }


def rows(layers: Layers) -> torch.Tensor:
    """Patches of images, (N * 784, 1536)."""
    parts = zip(*(layer.split(16) for layer in layers), strict=True)
    return torch.cat([assemble(*part).permute(0, 2, 3, 1).reshape(-1, 1536) for part in parts])


def _rows(layers: Layers, chosen: npt.NDArray[np.int64]) -> Layers:
    index = torch.from_numpy(chosen)
    return layers[0][index], layers[1][index]


def _some(layers: Layers, chosen: npt.NDArray[np.int64]) -> tuple[Chosen, Chosen]:
    return Chosen(layers[0], chosen), Chosen(layers[1], chosen)


def cached(category: str, root: Path, cache: Path, precision: Precision) -> Images:
    """From the cache, or extracted and put there."""
    path = cache / f"{category}-{precision}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_extracted(category, root, precision), path)
    content = torch.load(path, weights_only=True, mmap=True)
    return Images(**content)


def _extracted(category: str, root: Path, precision: Precision) -> dict[str, Any]:
    folder = root / "data" / "mvtec224" / category
    normal = pictures(sorted((folder / "train" / "good").glob("*.png")))
    tests = sorted((folder / "test").rglob("*.png"))
    _, held = split(len(normal), HELD_OUT, seed=0)
    generator = np.random.default_rng(1)
    kinds = [kind for _ in held for kind in KINDS]
    drawn = np.stack([draw(normal[i], kind, generator)[0] for i in held for kind in KINDS])
    state = torch.load(root / WEIGHTS, weights_only=True)
    network = load_backbone(state, "v1", "cpu", DTYPES[precision])

    def layers(pixels: npt.NDArray[np.uint8]) -> Layers:
        two, three = (
            torch.empty(len(pixels), *shape, dtype=DTYPES[precision]).permute(0, 3, 1, 2)
            for shape in ((28, 28, 512), (14, 14, 1024))
        )
        extract_layers(pixels, network, two, three, device="cpu", precision=precision)
        return two, three

    def mask(path: Path) -> npt.NDArray[np.bool_]:
        where = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        return read_mask(str(where)) if path.parent.name != "good" else np.zeros((SIZE, SIZE), dtype=bool)

    console.print(f"features of {category}", style="dim")
    return {
        "normal": layers(normal),
        "held": held.tolist(),
        "drawn": layers(drawn),
        "kinds": kinds,
        "test": layers(pictures(tests)),
        "defective": [path.parent.name != "good" for path in tests],
        "masks": torch.from_numpy(np.stack([mask(path) for path in tests])),
    }


def pictures(paths: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """Image files as the models see them, uint8 (N, 224, 224, 3)."""
    return np.stack([decode(path.read_bytes()).pixels for path in paths])


def show(found: Mapping[str, list[dict[str, Figures]]], keys: Sequence[str]) -> None:
    """Means over seeds with their spread: by category, over all, the worst one."""
    for key in keys:
        title = "AUROC of synthetic defects" if key == "mean" else f"{key} of the test images"
        table = Table(title=title, title_justify="left")
        for heading in ("recipe", "seeds", *CATEGORIES, "mean", "worst", "seconds"):
            table.add_column(heading, justify="left" if heading == "recipe" else "right")
        for name, runs in found.items():
            by_seed = np.array([[run[c].get(key, np.nan) for c in CATEGORIES] for run in runs])
            columns = [*by_seed.T, by_seed.mean(axis=1), by_seed.min(axis=1)]
            seconds = np.mean([sum(run[c]["seconds"] for c in CATEGORIES) for run in runs])
            table.add_row(name, str(len(runs)), *map(_spread, columns), f"{seconds:.0f}")
        console.print(table)


def _spread(values: npt.NDArray[np.float64]) -> str:
    return f"{values.mean():.4f}" + (f" ({values.min():.4f}-{values.max():.4f})" if len(values) > 1 else "")


if __name__ == "__main__":
    app()
