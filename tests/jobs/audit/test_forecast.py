"""What a dry run expects of a run, from a sample of its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jobs.audit import exits
from jobs.audit import forecast as module
from jobs.audit.config import AuditConfig, ErrorBudget
from jobs.audit.exits import AuditError
from jobs.audit.forecast import EFFICIENCY, SAMPLE, START_AND_END_SECONDS
from jobs.audit.placement import POOL, Placement
from jobs.audit.run import dry_run
from jobs.audit.summary import _duration, _expected, _size
from tests.bundles import random_pixels


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 files of the same 40 pictures and a manifest of them."""
    folder = tmp_path_factory.mktemp("images")
    picture = Image.fromarray(random_pixels(1)[0])
    for i in range(60):
        picture.save(folder / f"{i:02d}.png")
    (folder / "manifest.csv").write_text("uri\n" + "".join(f"{i:02d}.png\n" for i in range(60)))
    return folder


def config(images: Path, bundle: str, output: Path, **settings: object) -> AuditConfig:
    return AuditConfig(manifest=str(images / "manifest.csv"), bundle=bundle, output=str(output), **settings)  # type: ignore[arg-type]


def test_bytes_time_and_cost_are_those_of_the_sample_times_the_rows(images: Path, bundle: str, tmp_path: Path) -> None:
    asked = config(images, bundle, tmp_path / "out", price_per_node_hour=7.2, device="cpu")
    preview = dry_run(asked)
    found = preview.expected
    assert found is not None and (found.sampled, found.unread, found.nodes) == (SAMPLE, 0, 1)
    assert found.bytes_per_image == (images / "00.png").stat().st_size
    assert found.images_per_second == pytest.approx(
        EFFICIENCY * found.cpus / (found.load_seconds + found.model_seconds)
    )
    assert found.duration_seconds == pytest.approx(60 / found.images_per_second + START_AND_END_SECONDS)
    assert found.cost(7.2, 60)["total"] == pytest.approx(7.2 * found.duration_seconds / 3600, abs=1e-4)
    told = dict(_expected(asked, preview))
    assert "error budget" not in told
    assert told["to read"].startswith(_size(60 * found.bytes_per_image))
    assert "per 1,000 images, at 7.2 per node and hour" in told["cost"]
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_read_are_told(bundle: str, tmp_path: Path) -> None:
    Image.fromarray(random_pixels(1)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"<html>")
    (tmp_path / "manifest.csv").write_text("uri\ngood.png\nbad.png\nnone.png\n")
    asked = config(tmp_path, bundle, tmp_path / "out", device="cpu")
    preview = dry_run(asked)
    assert preview.expected is not None and (preview.expected.sampled, preview.expected.unread) == (3, 2)
    told = dict(_expected(asked, preview))
    assert "2 unread, such as" in told["sample"] and "none.png" in told["sample"]
    assert told["error budget"] == "1% would be exceeded: about 2 rows would fail"
    assert "--price" in told["cost"]


def test_duplicates_are_in_no_budget(
    images: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "twice.csv").write_text("uri\n" + 2 * "".join(f"{i:02d}.png\n" for i in range(60)))
    asked = config(images, bundle, tmp_path / "out", device="cpu").model_copy(
        update={"manifest": str(images / "twice.csv"), "max_failed": ErrorBudget(count=0)}
    )
    monkeypatch.setattr(module, "_model_seconds", lambda *_: 0.1)
    preview = dry_run(asked)
    assert preview.frozen.problems == {"duplicate": 60}
    assert "error budget" not in dict(_expected(asked, preview))
    assert preview.expected is not None
    priced = asked.model_copy(update={"price_per_node_hour": 7.2})
    costs = preview.expected.cost(7.2, preview.to_do)
    assert f"{costs['per_1000_images']:.4g} per 1,000 images" in dict(_expected(priced, preview))["cost"]
    short = replace(preview, expected=replace(preview.expected, unread=6))
    assert dict(_expected(asked, short))["error budget"] == "0 would be exceeded: about 15 rows would fail"


def test_a_cluster_without_a_node_for_models_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(module, "working_nodes", lambda: [{"Labels": {POOL: "load"}, "Resources": {"CPU": 8}}])
    with pytest.raises(
        AuditError, match=r"none with CPUs has the label line-audit/pool=models .*a dry run asks for none"
    ) as caught:
        module._cluster("cpu", Placement(pools=True))
    assert caught.value.code == exits.USAGE


def test_a_sample_without_any_image_gives_no_forecast(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("uri\nnone.png\n")
    asked = config(tmp_path, bundle, tmp_path / "out", device="cpu")
    preview = dry_run(asked)
    assert preview.expected is None
    assert _expected(asked, preview) == [
        ("expected", "unknown: no image of the sample could be read"),
        ("error budget", "1% would be exceeded"),
    ]


def test_sizes_and_durations_for_people() -> None:
    assert [_size(n) for n in (10, 2048, 3 * 2**30, 5 * 2**40)] == ["10.0 B", "2.0 KiB", "3.0 GiB", "5.0 TiB"]
    assert [_duration(n) for n in (80, 600, 7200)] == ["80 s", "10 min", "2.0 h"]
