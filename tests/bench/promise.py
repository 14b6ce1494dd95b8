"""Whether thresholds keep their promise: ``python -m tests.bench.promise BUNDLE EVALUATION [BUNDLE EVALUATION ...]``.

The scores of normal images in a bundle are parted at random into two halves, a thousand times: a threshold is set from
one, and the share of the other that it rejects is what a line would see. Then what a threshold from all of them does to
the test images of an evaluation of that bundle. mean_plus_3sigma is applied to the same scores, of unseen images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from anomaly_core.bundle_manifest import BUNDLE_FILE, BundleManifest
from anomaly_core.calibration import ThresholdRule
from anomaly_core.metrics import Rate, decided, rate
from jobs.evaluation.figures import by_threshold

RULES = ("conformal:0.01", "conformal:0.05", "mean_plus_3sigma")
SPLITS = 1000
console = Console(width=150)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(folders: Annotated[list[Path], typer.Argument(help="A bundle, its evaluation, and so on.")]) -> None:
    """Print the shares, by rule and category, and over all bundles."""
    table = Table(title=f"rejected of normal images that were not seen, mean of {SPLITS} splits", title_justify="left")
    for heading in ("rule", "category", "n", "rejected", "false rejects, test", "escapes, test"):
        table.add_column(heading, justify="left" if heading in ("rule", "category") else "right")
    pairs = list(zip(folders[::2], folders[1::2], strict=True))
    bundles = [BundleManifest.from_bytes((bundle / BUNDLE_FILE).read_bytes()) for bundle, _ in pairs]
    tests = [pq.read_table(evaluation / "images.parquet").to_pylist() for _, evaluation in pairs]
    for rule in map(ThresholdRule.parse, RULES):
        everything = []
        for category in bundles[0].categories:
            found = [_judged(*pair, category, rule) for pair in zip(bundles, tests, strict=True)]
            count = len(bundles[0].training[category].calibration_scores)
            table.add_row(str(rule), category, str(count), *_cells(found))
            everything.append(found)
        table.add_row(
            str(rule), "all", "", *_cells([_together(of_bundle) for of_bundle in zip(*everything, strict=True)])
        )
        table.add_section()
    console.print(table)


@dataclass(frozen=True)
class Kept:
    """Of one bundle. share: of unseen normal images that is rejected. rejects, escapes: of the test images."""

    share: float
    rejects: Rate
    escapes: Rate


def _judged(bundle: BundleManifest, rows: list[dict[str, Any]], category: str, rule: ThresholdRule) -> Kept:
    scores = bundle.training[category].calibration_scores
    own = [row for row in rows if row["category"] == category]
    said = by_threshold(np.array([row["score"] for row in own]), rule(scores).value)
    rates = decided([row["defective"] for row in own], said)
    return Kept(float(rejected(scores, rule).mean()), rates.false_rejects, rates.escapes)


def _together(found: Sequence[Kept]) -> Kept:
    rejects, escapes = ([getattr(one, name) for one in found] for name in ("rejects", "escapes"))
    return Kept(float(np.mean([one.share for one in found])), _summed(rejects), _summed(escapes))


def _summed(rates: Sequence[Rate]) -> Rate:
    return rate(sum(one.count for one in rates), sum(one.of for one in rates))


def _cells(found: Sequence[Kept]) -> list[str]:
    """Bundles see the same test images, so the interval is that of one bundle with their mean count."""
    shares = [100 * one.share for one in found]
    cells = [f"{np.mean(shares):.2f} % ({min(shares):.2f}-{max(shares):.2f})"]
    for name in ("rejects", "escapes"):
        rates: list[Rate] = [getattr(one, name) for one in found]
        counts, total = [one.count for one in rates], rates[0].of
        cells.append(f"{', '.join(map(str, counts))} of {total}: {rate(round(float(np.mean(counts))), total)}")
    return cells


def rejected(scores: Sequence[float], rule: ThresholdRule, splits: int = SPLITS) -> npt.NDArray[np.float64]:
    """Shares of one half that are rejected by the threshold from the other one, float64 (splits,)."""
    generator, values = np.random.default_rng(0), np.array(scores)
    found = []
    for _ in range(splits):
        order = generator.permutation(len(values))
        one, other = values[order[: len(order) // 2]], values[order[len(order) // 2 :]]
        found.append((other >= rule(one).value).mean())
    return np.array(found)


if __name__ == "__main__":
    app()
