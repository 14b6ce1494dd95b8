"""What the app shows of a row of a real run: the pictures of the audit, or the same ones made again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.app.evidence import Evidence, evidence
from jobs.app.rows import whole_row
from jobs.app.runs import BrowsedRun, Runs
from jobs.audit.run import Outcome


@pytest.fixture
def browsed(run: tuple[Path, Outcome], tmp_path: Path) -> BrowsedRun:
    """The run, copied to another place as an archive of outputs would be."""
    return Runs(str(shutil.copytree(run[0], tmp_path / "copy"))).open("2026-01-02", "audit")


def row_where(browsed: BrowsedRun, condition: str) -> dict[str, Any]:
    found = browsed.connection.sql(
        f"SELECT file_row_number FROM read_parquet('{browsed.table}', file_row_number=true) WHERE {condition}"
    ).fetchall()
    row = whole_row(browsed.connection, browsed.table, found[0][0])
    assert row is not None
    return row


def seen(browsed: BrowsedRun, row: dict[str, Any]) -> tuple[Evidence, list[bytes]]:
    """What the app has of a row, and the pictures as the audit wrote them."""
    folder = Path(browsed.folder.heatmaps) / row["category"]
    paths = [folder / f"{row['image_id']}{ending}.png" for ending in ("", "_overlay")]
    written = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    return evidence(browsed, row), written


def test_pictures_of_the_run_are_shown_and_made_again_alike_when_they_are_gone(browsed: BrowsedRun) -> None:
    row = row_where(browsed, "heatmap_path IS NOT NULL AND uri LIKE '%.jpg'")
    assert not row["heatmap_path"].startswith(browsed.folder.output)  # the copy has another place
    before = evidence(browsed, row)
    again, written = seen(browsed, row)
    assert [before.heatmap.data, before.overlay.data] == written
    assert [again.heatmap.data, again.overlay.data] == written
    assert again.ratio == pytest.approx(row["width"] / row["height"])


def test_the_original_has_its_own_shape_and_pixels(browsed: BrowsedRun, archive: Path, tmp_path: Path) -> None:
    row = row_where(browsed, "uri LIKE '%001.png'")
    path = tmp_path / "seen.jpg"
    path.write_bytes(evidence(browsed, row).original.data)
    shown, original = np.asarray(Image.open(path)), np.asarray(Image.open(archive / "images" / "001.png"))
    assert shown.shape == original.shape == (200, 301, 3)
    assert np.abs(shown.astype(int) - original).mean() < 2


def test_an_image_that_was_overwritten_or_is_gone_says_so(
    browsed: BrowsedRun, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = row_where(browsed, "heatmap_path IS NOT NULL")
    moved = shutil.copytree(archive, tmp_path / "archive")
    monkeypatch.setattr(browsed.record, "manifest", str(moved / "manifest.csv"))
    (moved / row["uri"]).write_bytes((moved / "images" / "015.png").read_bytes() + b" ")
    found, written = seen(browsed, row)
    assert (found.original.data, found.original.problem) == (b"", "the image was overwritten since it was scored")
    assert found.heatmap.data == written[0]  # needs no image
    assert (found.overlay.data, found.overlay.problem) == (b"", "there is no overlay without the image")
    (moved / row["uri"]).unlink()
    assert evidence(browsed, row).original.problem.startswith("the image cannot be had (missing_object: ")


def test_addresses_that_the_run_would_not_read_are_not_read(browsed: BrowsedRun, tmp_path: Path) -> None:
    row = row_where(browsed, "heatmap_path IS NOT NULL")
    picture = Path(browsed.folder.heatmaps, row["category"], f"{row['image_id']}.png").read_bytes()
    (tmp_path / "secret.png").write_bytes(picture + b"secret")
    for uri in (str(tmp_path / "secret.png"), "../../secret.png", "http://169.254.169.254/latest"):
        found = evidence(browsed, row | {"uri": uri, "sha256": None})
        assert found.original.data == b"" and "not_allowed" in found.original.problem
    tail = f"/heatmaps/run_date={browsed.folder.run_date}/{browsed.folder.name}/"
    for path in (str(tmp_path / "secret.png"), f"s3://x{tail}../../../../secret.png"):
        assert evidence(browsed, row | {"heatmap_path": path}).heatmap.data == picture
    for odd in ({"category": "../../../.."}, {"category": ".."}, {"image_id": "../secret"}):
        found = evidence(browsed, row | odd | {"score": None})
        assert (found.heatmap.data, found.heatmap.problem) == (b"", "the image has no score")


def test_a_failed_row_shows_what_is_wrong_with_its_file(browsed: BrowsedRun) -> None:
    said = {code: evidence(browsed, row_where(browsed, f"error_code = '{code}'")).original.problem
            for code in ("html_document", "truncated_image", "missing_object", "empty_uri")}  # fmt: skip
    assert "html_document" in said["html_document"] and "truncated_image" in said["truncated_image"]
    assert said["missing_object"].startswith("the image cannot be had (missing_object: ")
    assert said["empty_uri"].startswith("the image cannot be had (")


def test_an_error_map_that_cannot_be_read_says_so(browsed: BrowsedRun) -> None:
    row = row_where(browsed, "heatmap_path IS NOT NULL")
    shard = Path(browsed.folder.shards, f"shard-{row['shard']:06d}.parquet")
    shard.write_bytes(b"PAR1 damaged")
    found, _ = seen(browsed, row)
    assert "the shard is damaged" in found.heatmap.problem and found.original.data
    shard.unlink()
    assert "the shard with the error map of" in evidence(browsed, row).overlay.problem
