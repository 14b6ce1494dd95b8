"""Recipes compared: ``python -m tests.bench.recipes``. Choices are made on synthetic defects, never on test images.

Of each category a fifth of the normal training images is held out. Synthetic defects are drawn on them, and a recipe is
as good as the area under the ROC curve between held-out images and the same with a defect. ``--test`` tells, of recipes
that were chosen before, the area on the test images, beside that of the nearest neighbour among the training patches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from anomaly_core.device import DTYPES, Precision, resolve_precision
from anomaly_core.features import assemble, load_backbone
from anomaly_core.metrics import image_auroc
from anomaly_core.preprocess import decode
from anomaly_core.scoring import CategoryScorer, score_maps
from anomaly_core.training import RECIPES, Recipe, extract_layers, split
from tests.bench.defects import KINDS, draw
from tests.conftest import shared_root

CATEGORIES = ("bottle", "pill", "screw")
WEIGHTS = "weights/resnet50_v1_caffe_imagenet_conv1_to_layer3.pth"
HELD_OUT = 0.2
NEIGHBOURS, BANK = 1, 20_000
_REFERENCE = RECIPES["reference"]
_FEW = replace(_REFERENCE, cae_positions=0.25)
_FALLING = replace(_FEW, cae_schedule="cosine", cae_rate=3e-3, cae_epochs=30)
CANDIDATES: Mapping[str, Recipe] = {
    "reference": _REFERENCE,
    "positions": _FEW,
    "positions, weighted": replace(_FEW, weighting="residual"),
    "falling": _FALLING,
    "falling, weighted": replace(_FALLING, weighting="residual"),
    "falling, standardised": replace(_FALLING, standardise=True),
    "falling, standardised, weighted": replace(_FALLING, standardise=True, weighting="residual"),
    "principal": replace(_REFERENCE, cae="principal"),
    "principal, weighted": replace(_REFERENCE, cae="principal", weighting="residual"),
}
console = Console(width=150)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Layers = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Images:
    """Features of one category: of normal images to fit and to hold out, of synthetic defects on these with their
    kinds, and of the test images with their truth."""

    fit: Layers
    held: Layers
    drawn: Layers
    kinds: list[str]
    test: Layers
    defective: list[bool]


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes (default: all).")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of the training, from 0.")] = 1,
    test: Annotated[bool, typer.Option("--test", help="Tell the figures of the test images too.")] = False,
    cache: Annotated[Path, typer.Option(help="Where features are kept.")] = Path("bench-output/recipes"),
) -> None:
    """Print the table of recipes."""
    root = shared_root()
    if root is None:
        raise typer.Exit(typer.echo("no real images and weights (LINE_AUDIT_SHARED)", err=True) or 2)
    precision = resolve_precision("auto", "cpu")
    images = {category: cached(category, root, cache, precision) for category in CATEGORIES}
    found: dict[str, Any] = {}
    if test:
        found["nearest neighbour"] = [{c: {"test": neighbour(one)} for c, one in images.items()}]
        show(found, test)
    for name in names or CANDIDATES:
        found[name] = []
        for seed in range(seeds):
            found[name].append({c: judged(one, CANDIDATES[name], precision, seed, test) for c, one in images.items()})
            show({name: found[name]}, test)
    show(found, test)
    (cache / "recipes.json").write_text(json.dumps(found, indent=1))


def judged(images: Images, recipe: Recipe, precision: Precision, seed: int, test: bool) -> dict[str, float]:
    """AUROC by kind of synthetic defect, their mean, of the test images if asked for, and seconds of the fit."""
    start = time.monotonic()
    fitted = fit_cae(*images.fit, recipe, device="cpu", precision=precision, seed=seed)
    seconds = time.monotonic() - start
    dtype = DTYPES[precision]
    weights = None
    if recipe.weighting == "residual":
        weights = residual_weights(load_cae(fitted.state, "cpu", dtype), *images.held)
    scorer = CategoryScorer(load_cae(fitted.state, "cpu", dtype, weights), "top10_mean_224", "cpu", dtype)
    held, drawn = scorer(*images.held).score, scorer(*images.drawn).score
    figures = {kind: separation(held, drawn[np.array(images.kinds) == kind]) for kind in KINDS}
    figures |= {"mean": float(np.mean(list(figures.values()))), "seconds": seconds}
    if test:
        figures["test"] = image_auroc(images.defective, scorer(*images.test).score)
    return figures


def separation(normal: npt.NDArray[np.float32], defective: npt.NDArray[np.float32]) -> float:
    """Area under the ROC curve between two sets of scores."""
    return image_auroc([False] * len(normal) + [True] * len(defective), np.concatenate([normal, defective]))


def neighbour(images: Images) -> float:
    """AUROC of the test images by the distance of their farthest patch to the nearest of 20,000 random patches of the
    normal images (as PatchCore without its coreset: Roth et al. 2022), on the same features and with the same score."""
    patches = torch.cat([rows(layers) for layers in (images.fit, images.held)])
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(patches))[:BANK])
    bank = patches[chosen].float()
    maps = []
    for start in range(0, len(images.test[0]), 4):
        some = (images.test[0][start : start + 4], images.test[1][start : start + 4])
        nearest = torch.cdist(rows(some).float(), bank).topk(NEIGHBOURS, largest=False).values.mean(dim=1)
        maps.append(nearest.square().view(-1, 28, 28))
    return image_auroc(images.defective, score_maps(torch.cat(maps), "top10_mean_224")[0])


def rows(layers: Layers) -> torch.Tensor:
    """Patches of images, (N * 784, 1536)."""
    parts = zip(*(layer.split(16) for layer in layers), strict=True)
    return torch.cat([assemble(*part).permute(0, 2, 3, 1).reshape(-1, 1536) for part in parts])


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
    normal = _pixels(sorted((folder / "train" / "good").glob("*.png")))
    tests = sorted((folder / "test").rglob("*.png"))
    fit, held = split(len(normal), HELD_OUT, seed=0)
    generator = np.random.default_rng(1)
    kinds = [kind for _ in held for kind in KINDS]
    drawn = np.stack([draw(normal[i], kind, generator)[0] for i in held for kind in KINDS])
    state = torch.load(root / WEIGHTS, weights_only=True)
    network = load_backbone(state, "v1", "cpu", DTYPES[precision])

    def layers(pixels: npt.NDArray[np.uint8]) -> Layers:
        two, three = (
            torch.empty(len(pixels), *shape, dtype=DTYPES[precision]) for shape in ((512, 28, 28), (1024, 14, 14))
        )
        extract_layers(pixels, network, two, three, device="cpu", precision=precision)
        return two, three

    console.print(f"features of {category}", style="dim")
    return {
        "fit": layers(normal[fit]),
        "held": layers(normal[held]),
        "drawn": layers(drawn),
        "kinds": kinds,
        "test": layers(_pixels(tests)),
        "defective": [path.parent.name != "good" for path in tests],
    }


def _pixels(paths: list[Path]) -> npt.NDArray[np.uint8]:
    return np.stack([decode(path.read_bytes()).pixels for path in paths])


def show(found: Mapping[str, Any], test: bool) -> None:
    """Means over seeds with their spread: by category, over all, the worst one."""
    table = Table(
        title="AUROC of synthetic defects" + (", then of the test images" if test else ""), title_justify="left"
    )
    for heading in (
        "recipe",
        "seeds",
        *CATEGORIES,
        "mean",
        "worst",
        *((*CATEGORIES, "mean") if test else ()),
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for name, runs in found.items():
        cells = [name, str(len(runs))]
        for key in ("mean", "test")[: 1 + test]:
            by_seed = np.array([[run[c].get(key, np.nan) for c in CATEGORIES] for run in runs])
            columns = [*by_seed.T, by_seed.mean(axis=1), *([by_seed.min(axis=1)] if key == "mean" else [])]
            cells += [_spread(column) for column in columns]
        cells.append(f"{np.mean([sum(run[c].get('seconds', 0) for c in CATEGORIES) for run in runs]):.0f}")
        table.add_row(*cells)
    console.print(table)


def _spread(values: npt.NDArray[np.float64]) -> str:
    if np.isnan(values).all():
        return "-"
    return f"{values.mean():.4f}" + (f" ({values.min():.4f}-{values.max():.4f})" if len(values) > 1 else "")


if __name__ == "__main__":
    app()
