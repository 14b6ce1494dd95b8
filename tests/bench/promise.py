"""Whether thresholds keep their promise: ``python -m tests.bench.promise BUNDLE EVALUATION [BUNDLE EVALUATION ...]``.

The scores of normal images in a bundle are parted at random into two halves, a thousand times: a threshold is set from
one, and the share of the other that it rejects is what a line would see. Then what a threshold from all of them does to
the test images of an evaluation of that bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from anomaly_core.bundle_manifest import BUNDLE_FILE, BundleManifest
from anomaly_core.calibration import ThresholdRule
from anomaly_core.metrics import decided

RULES = ("conformal:0.01", "conformal:0.05", "mean_plus_3sigma")
SPLITS = 1000
console = Console(width=150)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(folders: Annotated[list[Path], typer.Argument(help="A bundle, its evaluation, and so on.")]) -> None:
    """Print the shares, by rule and category, and over all bundles."""
    table = Table(title=f"rejected of normal images that were not seen, mean of {SPLITS} splits", title_justify="left")
    for heading in ("rule", "category", "bundles", "n", "rejected", "false rejects, test", "escapes, test"):
        table.add_column(heading, justify="left" if heading in ("rule", "category") else "right")
    pairs = list(zip(folders[::2], folders[1::2], strict=True))
    bundles = [BundleManifest.from_bytes((bundle / BUNDLE_FILE).read_bytes()) for bundle, _ in pairs]
    tests = [pq.read_table(evaluation / "images.parquet").to_pylist() for _, evaluation in pairs]
    for rule in map(ThresholdRule.parse, RULES):
        everything: list[tuple[float, list[bool], npt.NDArray[np.bool_]]] = []
        for category in bundles[0].categories:
            found = []
            for bundle, rows in zip(bundles, tests, strict=True):
                scores = bundle.training[category].calibration_scores
                own = [row for row in rows if row["category"] == category]
                over = np.array([row["score"] for row in own]) >= rule(scores).value
                found.append((float(rejected(scores, rule).mean()), [row["defective"] for row in own], over))
            _row(table, str(rule), category, found, len(bundles), str(len(scores)))
            everything += found
        _row(table, str(rule), "all", everything, len(bundles), "")
        table.add_section()
    console.print(table)


def _row(
    table: Table,
    rule: str,
    category: str,
    found: Sequence[tuple[float, list[bool], npt.NDArray[np.bool_]]],
    bundles: int,
    count: str,
) -> None:
    shares = [100 * share for share, _, _ in found]
    truth, over = (np.concatenate([one[part] for one in found]) for part in (1, 2))
    rates = decided(truth, np.where(over, "anomalous", "normal"))
    told = f"{np.mean(shares):.2f} % ({min(shares):.2f}-{max(shares):.2f})"
    both = (f"{one.count} of {one.of}: {one}" for one in (rates.false_rejects, rates.escapes))
    table.add_row(rule, category, str(bundles), count, told, *both)


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
