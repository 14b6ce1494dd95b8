"""``show`` on what an audit wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from anomaly_core.heatmap import LINE_ABOVE, LINE_BELOW
from jobs.audit.run import Outcome
from jobs.cli import app
from tests.jobs.audit.tables import published


def test_an_audit_records_what_show_needs(run: tuple[Path, Outcome], archive: Path, tmp_path: Path) -> None:
    output, outcome = run
    rows = [row for row in published(output).to_pylist() if row["decision"] == "anomalous"]
    assert len(rows) > 5 and outcome.record.preprocessing is not None
    names = [row["image_id"] for row in rows]
    # Where the bundle is now does not matter: it is not needed.
    words = ["show", "--run", f"{output}/runs/2026-01-02/audit", "--to", str(tmp_path), "--bundle", "/nowhere", *names]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for row in rows:
        image = np.asarray(Image.open(tmp_path / f"{row['image_id']}-image.png"))
        np.testing.assert_array_equal(image, np.asarray(Image.open(archive / row["uri"]).convert("RGB")))
        over = np.asarray(Image.open(tmp_path / f"{row['image_id']}-overlay.png"))[: len(image)]
        line = [(over == colour).all(axis=2).any() for colour in (LINE_ABOVE, LINE_BELOW)]
        assert over.shape[0] == row["height"] and line == [True, True]
        heat = np.asarray(Image.open(tmp_path / f"{row['image_id']}-heatmap.png"))[: len(image), : row["width"]]
        brightest = np.argwhere(heat.astype(int).sum(axis=2) == heat.astype(int).sum(axis=2).max())
        peak = np.array([row["peak_y"], row["peak_x"]])
        assert np.abs(brightest + 0.5 - peak).sum(axis=1).min() < 4
