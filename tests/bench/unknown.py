"""Unknown products told on real images: ``python -m tests.bench.unknown``.

Each of three categories is left out in turn, and what the others say of its test images is counted; then images of
categories that none of the three is. Such an image counts as unknown if it is beyond the limit of every category, which
is the least that an audit flags: it asks the routed category alone. Known are the test images of the three, each by its
own category, to which the router sends them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.table import Table

from anomaly_core.device import DTYPES, resolve_precision
from anomaly_core.features import Backbone, load_backbone
from anomaly_core.known import Known, fit_known, pooled
from anomaly_core.metrics import rate
from anomaly_core.preprocess import normalise
from tests.bench.recipes import CATEGORIES, WEIGHTS, pictures
from tests.conftest import shared_root

# Share of the known images that may be called unknown, at the second point of operation.
FALSE_UNKNOWN = 0.01
console = Console(width=120)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(output: Annotated[Path, typer.Option(help="Where distances go.")] = Path("bench-output/unknown.json")) -> None:
    """Print how many images of known and of unknown products are called unknown, and how near the limit they are."""
    root = shared_root()
    if root is None:
        raise typer.Exit(typer.echo("no real images and weights (LINE_AUDIT_SHARED)", err=True) or 2)
    dtype = DTYPES[resolve_precision("auto", "cpu")]
    network = load_backbone(torch.load(root / WEIGHTS, weights_only=True), "v1", "cpu", dtype)
    folder = root / "data" / "mvtec224"
    train = {c: features(sorted((folder / c / "train").rglob("*.png")), network, dtype) for c in CATEGORIES}
    paths = {c: sorted((folder / c / "test").rglob("*.png")) for c in CATEGORIES}
    tests = {c: features(paths[c], network, dtype) for c in CATEGORIES}
    strange = [p for p in sorted((root / "data" / "native").rglob("*.png")) if p.parts[-4] not in CATEGORIES]

    known = fit_known([train[c] for c in CATEGORIES])
    found = {"native": nearest(known, features(strange, network, dtype))}
    for left in CATEGORIES:
        found[f"{left}, left out"] = nearest(fit_known([train[c] for c in CATEGORIES if c != left]), tests[left])
    good = {c: np.array([path.parent.name == "good" for path in paths[c]]) for c in CATEGORIES}
    own = {c: known(tests[c])[:, index] for index, c in enumerate(CATEGORIES)}
    for c, distances in own.items():
        found |= {f"{c}, good": distances[good[c]], f"{c}, defective": distances[~good[c]]}
    table = Table(title="called unknown", title_justify="left")
    for heading in ("images", "called unknown", "share (95 %)", "nearest", "farthest"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    unknown = [name for name in found if name == "native" or "left out" in name]
    groups = {name: [name] for name in found} | {
        "all unknown": unknown,
        "all known": [name for name in found if name not in unknown],
    }
    for name, parts in groups.items():
        values = np.concatenate([found[part] for part in parts])
        share = rate(int((values > 1).sum()), len(values))
        cells = f"{share.count} of {share.of}", str(share), f"{values.min():.2f}", f"{values.max():.2f}"
        table.add_row(name, *cells)
    console.print(table)
    strangers, parts = (np.concatenate([found[name] for name in groups[key]]) for key in ("all unknown", "all known"))
    allowed = np.sort(parts)[::-1][int(FALSE_UNKNOWN * len(parts))]  # the limit that so many of the known ones exceed
    told = rate(int((strangers > allowed).sum()), len(strangers))
    console.print(
        f"with limits {allowed:.3f} times as far, which {100 * FALSE_UNKNOWN:g} % of the known images exceed: "
        f"{told.count} of {told.of} unknown ones called unknown, {told}"
    )
    for c in CATEGORIES:
        flagged = [path for path, value in zip(paths[c], own[c], strict=True) if value > 1]
        if flagged:
            console.print(f"{c}: {', '.join('/'.join(path.parts[-2:]) for path in flagged)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({name: values.tolist() for name, values in found.items()}, indent=1))


def nearest(known: Known, pooled_features: torch.Tensor) -> npt.NDArray[np.float32]:
    """Distance from the nearest category as a multiple of its limit, float32 (N,)."""
    return known(pooled_features).min(axis=1)


@torch.inference_mode()
def features(paths: Sequence[Path], network: Backbone, dtype: torch.dtype) -> torch.Tensor:
    """Pooled features of image files, float32 (N, 1536)."""
    parts = [paths[start : start + 8] for start in range(0, len(paths), 8)]
    return torch.cat([pooled(*network(normalise(torch.tensor(pictures(part)), dtype))) for part in parts])


if __name__ == "__main__":
    app()
