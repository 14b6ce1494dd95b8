"""``line-audit show``: what it prints and draws, of rows as they are published now."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from anomaly_core.bundle_manifest import BUNDLE_FILE, THRESHOLDS_FILE
from anomaly_core.heatmap import heatmap, overlay, relative_map
from jobs.audit.record import Unfinished, shard_name
from jobs.cli import app
from jobs.listing import names_below
from jobs.show.rows import PublishedRow, find_rows
from jobs.storage import delete, read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join
from tests.anomaly_core.files import encode
from tests.jobs.show.scored import (
    BROKEN,
    LATE,
    LATER,
    ODD,
    OUTSIDE,
    PICTURES,
    TALL,
    THRESHOLD,
    TURNED,
    Made,
    hot_map,
    moved,
    rethreshold,
    retry,
)


def show(made: Made, target: str | Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["show", "--run", made.run, "--to", str(target), *words])


def one(made: Made, uri: str) -> PublishedRow:
    (row,) = find_rows(made.folder, [], [uri])
    return row


def pixels(target: str | Path, row: PublishedRow, name: str) -> npt.NDArray[np.uint8]:
    """A picture without its legend."""
    assert row.width is not None and row.height is not None
    data = read_bytes(join(str(target), f"{row.image_id}-{name}.png"))
    return np.asarray(Image.open(io.BytesIO(data)))[: row.height, : row.width]


def expected_map(uri: str, threshold: float = THRESHOLD) -> npt.NDArray[np.float32]:
    picture, cell = PICTURES[uri]
    return relative_map(hot_map(cell), threshold, (picture.shape[1], picture.shape[0]))


@pytest.mark.parametrize("uri", [TURNED, TALL])
def test_the_map_lies_right_over_the_picture(made: Made, tmp_path: Path, uri: str) -> None:
    """Neither picture is square, and one is stored turned by a quarter."""
    result = show(made, tmp_path, "--uri", uri)
    assert result.exit_code == 0, result.output
    (picture, (row, column)), found = PICTURES[uri], one(made, uri)
    height, width, _ = picture.shape
    np.testing.assert_array_equal(pixels(tmp_path, found, "image"), picture)
    np.testing.assert_array_equal(pixels(tmp_path, found, "heatmap"), heatmap(expected_map(uri)))
    over = pixels(tmp_path, found, "overlay")
    np.testing.assert_array_equal(over, overlay(expected_map(uri), picture))

    centre = ((row + 0.5) * height / 28, (column + 0.5) * width / 28)  # of the hot cell
    heat = pixels(tmp_path, found, "heatmap").astype(int).sum(axis=2)
    hottest = np.argwhere(heat == heat.max()).mean(axis=0) + 0.5
    np.testing.assert_allclose(hottest, centre, atol=1)
    np.testing.assert_allclose((found.peak_y, found.peak_x), centre, atol=max(height, width) / 224)
    changed = np.argwhere((over != picture).any(axis=2))
    assert abs(changed.mean(axis=0) + 0.5 - centre).max() < 1.5
    assert abs(changed + 0.5 - centre).max() < max(height, width) / 28


def test_what_is_printed_and_what_is_written(made: Made, tmp_path: Path) -> None:
    row = one(made, ODD)
    result = show(made, tmp_path, row.image_id[:8])
    assert result.exit_code == 0
    files = [f"{tmp_path}/{row.image_id}-{name}.png" for name in ("image", "heatmap", "overlay")]
    assert result.stdout.splitlines() == [
        "run 2026-01-02/audit, version 1 of the results",
        "",
        f"image_id      {row.image_id}",
        "uri           images/[red]odd.jpg",
        "line          L[1]",
        "camera        -",
        "captured_at   2026-01-01T22:02:00+00:00",
        "decision      anomalous",
        "category      cap",
        f"score         {row.score:.6g}",
        "threshold     0.1",
        f"margin        {row.margin:.6g}",
        "p_value       0.005",
        "peak          x 108.5, y 108.5 of 224 x 224 pixels",
        *(f"written       {file}" for file in files),
    ]
    assert sorted(map(str, tmp_path.iterdir())) == sorted(files)
    first = [Path(file).read_bytes() for file in files]
    assert show(made, tmp_path, "--uri", ODD).exit_code == 0
    assert [Path(file).read_bytes() for file in files] == first


def test_a_row_without_a_score_has_no_pictures(made: Made, tmp_path: Path) -> None:
    result = show(made, tmp_path, "--uri", BROKEN, "--uri", TALL)
    assert result.exit_code == 0
    assert "failed        decode/truncated_image: [b]why" in result.stdout.splitlines()
    assert f"note: {one(made, BROKEN).image_id}: it has no score" in result.stderr
    assert {path.name[:32] for path in tmp_path.iterdir()} == {one(made, TALL).image_id}


# ---------------------------------------------------------------------------------------- later versions of the results


def test_after_a_rethreshold_colours_are_those_of_the_new_threshold(
    own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rethreshold(own, 0.17, monkeypatch)
    result = show(own, tmp_path / "to", "--uri", TURNED)
    assert result.exit_code == 0, result.output
    row = one(own, TURNED)
    assert (row.threshold, row.decision) == (0.17, "normal")
    assert "run 2026-01-02/audit, version 2 of the results" in result.stdout
    for line in ("decision      normal", "threshold     0.17"):
        assert line in result.stdout.splitlines()
    over = pixels(tmp_path / "to", row, "overlay")
    np.testing.assert_array_equal(over, overlay(expected_map(TURNED, 0.17), PICTURES[TURNED][0]))
    legend = [np.asarray(Image.open(path)).shape for path in (tmp_path / "to").glob("*-overlay.png")]
    assert legend == [(over.shape[0] + 72, 432, 3)]


def test_after_retries_the_map_is_that_of_the_last_one_that_has_the_row(
    own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry(own, LATE)
    assert [one(own, uri).status for uri in (TURNED, LATE, LATER)] == ["scored", "scored", "failed"]
    rethreshold(own, 0.12, monkeypatch)
    retry(own, LATER)
    result = show(own, tmp_path / "to", *(word for uri in (TURNED, LATE, LATER) for word in ("--uri", uri)))
    assert result.exit_code == 0, result.output
    assert "version 4 of the results" in result.stdout
    for uri in (TURNED, LATE, LATER):
        row = one(own, uri)
        assert (row.threshold, row.score) == (0.12, own.facts[uri]["score"])
        np.testing.assert_array_equal(pixels(tmp_path / "to", row, "heatmap"), heatmap(expected_map(uri, 0.12)))
    assert not (tmp_path / "to" / f"{one(own, BROKEN).image_id}-heatmap.png").exists()


def test_a_run_that_is_not_committed_or_half_of_two_versions_is_refused(own: Made, tmp_path: Path) -> None:
    own.record.unfinished = Unfinished(command="rethreshold", rule="conformal:0.01")
    own.record.save(own.folder)
    assert show(own, tmp_path / "version 1", "--uri", TURNED).exit_code == 0  # of the next one, nothing is there yet
    write_bytes(own.folder.results, read_bytes(own.folder.results) + b"PAR1")
    result = show(own, tmp_path / "to", "--uri", TURNED)
    assert result.exit_code == 2
    assert f"finish it with line-audit rethreshold --run {own.run} --threshold conformal:0.01" in result.stderr
    delete(own.folder.success)
    result = show(own, tmp_path / "to", "--uri", TURNED)
    assert result.exit_code == 2 and "the run is not committed; finish it with audit" in result.stderr
    delete(own.folder.record)
    result = show(own, tmp_path / "to", "--uri", TURNED)
    assert result.exit_code == 2 and "there is no such run" in result.stderr
    assert not (tmp_path / "to").exists()


# ------------------------------------------------------------------------------------------------ what is not as it was


def only_the_heatmap(made: Made, target: Path, uri: str, said: str) -> None:
    row, result = one(made, uri), show(made, target, "--uri", uri)
    assert result.exit_code == 0, result.output
    assert f"note: {row.image_id}: {said}" in result.stderr
    assert "only its heatmap was made" in result.stderr
    assert [path.name for path in target.iterdir()] == [f"{row.image_id}-heatmap.png"]
    np.testing.assert_array_equal(pixels(target, row, "heatmap"), heatmap(expected_map(uri)))


def test_an_image_that_is_gone_or_overwritten_costs_image_and_overlay(own: Made, tmp_path: Path) -> None:
    delete(own.image(TALL))
    only_the_heatmap(own, tmp_path / "a", TALL, "the image cannot be had (missing_object: ")
    write_bytes(own.image(ODD), encode(PICTURES[TALL][0], "PNG"))
    only_the_heatmap(own, tmp_path / "b", ODD, "the image was overwritten since it was scored")


def test_a_storage_that_refuses_costs_image_and_overlay(
    own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageAccessError("s3://line/1.png: credentials refused (ExpiredToken); renew them and run again")

    monkeypatch.setattr("jobs.show.pictures.fetch", refuse)
    row = one(own, TALL)
    result = show(own, tmp_path / "seen", row.image_id)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "seen").iterdir()] == [f"{row.image_id}-heatmap.png"]
    assert "cannot be had: s3://line/1.png: credentials refused (ExpiredToken)" in result.stderr.replace("\n", " ")


def test_no_image_is_read_that_the_run_might_not_read(own: Made, tmp_path: Path) -> None:
    assert read_bytes(own.image(OUTSIDE)) and one(own, OUTSIDE).score is not None
    only_the_heatmap(own, tmp_path / "a", OUTSIDE, "the image cannot be had (not_allowed: outside the allowed folders")
    target = tmp_path / "elsewhere.png"
    os.rename(own.image(TALL), target)
    os.symlink(target, own.image(TALL))
    told = "the image cannot be had (not_allowed: a symbolic link to a place outside the allowed folders"
    only_the_heatmap(own, tmp_path / "b", TALL, told)
    own.record.parts["settings"]["allow"] = [str(tmp_path)]
    own.record.save(own.folder)
    assert show(own, tmp_path / "c", "--uri", OUTSIDE, "--uri", TALL).exit_code == 0
    assert len(list((tmp_path / "c").iterdir())) == 6


def test_a_shard_that_is_gone_damaged_or_of_another_run_is_told(own: Made, tmp_path: Path) -> None:
    row = one(own, TURNED)
    shard, other = (join(own.folder.shards, shard_name(number)) for number in (row.shard, row.shard + 1))
    whole = read_bytes(shard)
    for data, said in (
        (read_bytes(other), f"{shard}: it does not hold {row.image_id} with its published score"),
        (whole[:-200], f"{shard}: the shard is damaged ("),
        (None, f"{shard}: the shard with the error map of {row.image_id} is gone"),
    ):
        delete(shard)
        if data is not None:
            write_bytes(shard, data)
        result = show(own, tmp_path / "to", "--uri", TURNED)
        assert result.exit_code == 1 and said in result.stderr
    assert not (tmp_path / "to").exists()


def test_a_run_that_does_not_record_its_preprocessing_needs_its_bundle(own: Made, tmp_path: Path) -> None:
    own.record.preprocessing = None
    own.record.save(own.folder)
    result = show(own, tmp_path / "to", "--uri", TURNED)
    assert result.exit_code == 2 and not (tmp_path / "to").exists()
    assert f"{own.root}/bundle: the run's bundle is gone" in result.stderr
    assert "name a copy of the bundle with --bundle" in result.stderr
    write_bytes(join(own.root, "moved", BUNDLE_FILE), b"{}")
    result = show(own, tmp_path / "to", "--uri", TURNED, "--bundle", join(own.root, "moved"))
    assert result.exit_code == 2 and "take the bundle from its source again" in result.stderr
    # Of the reference's files: its images are not turned, and this one was.
    write_bytes(join(own.root, "bundle", THRESHOLDS_FILE), b"{}")
    result = show(own, tmp_path / "to", "--uri", TURNED)
    assert result.exit_code == 1 and "the image is 180 x 300 pixels, but 300 x 180 were scored" in result.stderr
    result = show(own, tmp_path / "to", "--uri", TALL)
    assert result.exit_code == 0 and len(list((tmp_path / "to").iterdir())) == 3
    delete(own.image(TURNED))
    delete(join(own.root, "bundle", THRESHOLDS_FILE))
    only_the_heatmap(own, tmp_path / "gone", TURNED, "the image cannot be had")


def test_what_is_asked_for_wrongly_is_refused(made: Made, tmp_path: Path) -> None:
    for words, said in (
        ([], "name an image: its image_id, the beginning of it, or its --uri"),
        (["../../etc/passwd"], "is no image_id"),
        (["--uri", TURNED, "ffff"], "ffff: no image of run 2026-01-02/audit"),
    ):
        result = show(made, tmp_path / "to", *words)
        assert result.exit_code == 2 and said in result.stderr
    result = show(made, "odd://place", "--uri", TURNED)
    assert result.exit_code == 2 and "--to odd://place: no storage for scheme 'odd'" in result.stderr
    assert not (tmp_path / "to").exists()


@pytest.mark.usefixtures("s3")
def test_from_s3_to_s3(made: Made) -> None:
    own = moved(made, "s3://bucket/shown")
    retry(own, LATE)
    result = show(own, "s3://bucket/pictures", "--uri", LATE, "--uri", TURNED, "--uri", OUTSIDE)
    assert result.exit_code == 0, result.output
    late, turned, outside = (one(own, uri) for uri in (LATE, TURNED, OUTSIDE))
    assert f"written       s3://bucket/pictures/{late.image_id}-overlay.png" in result.stdout.splitlines()
    assert f"note: {outside.image_id}: the image cannot be had (not_allowed: '..' in the path)" in result.stderr
    every = [f"{row.image_id}-{name}.png" for row in (late, turned) for name in ("image", "heatmap", "overlay")]
    assert sorted(names_below("s3://bucket/pictures")) == sorted([*every, f"{outside.image_id}-heatmap.png"])
    for uri, row in ((LATE, late), (TURNED, turned)):
        over = pixels("s3://bucket/pictures", row, "overlay")
        np.testing.assert_array_equal(over, overlay(expected_map(uri), PICTURES[uri][0]))
    result = show(own, "s3://no-such-bucket/pictures", "--uri", TURNED)
    assert result.exit_code == 4 and "no-such-bucket" in result.stderr
