"""The self-test before a run: what passes, what ends with exit 5, and that nothing is scored then."""

from __future__ import annotations

import io
import json
import shutil
import signal
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from anomaly_core.bundle import NO_REFERENCES, load_pth, save_pth
from anomaly_core.bundle_manifest import BUNDLE_FILE, ROUTER_FILE, BundleManifest, sha256
from jobs.audit import exits
from jobs.audit import self_test as module
from jobs.audit.exits import AuditError
from jobs.audit.figures import Spent
from jobs.audit.registry import Registry, ScorerSettings
from jobs.audit.run import Outcome, audit, dry_run
from jobs.audit.self_test import Found, await_clearance, judge, reference_shard
from jobs.audit.summary import print_plan
from jobs.bundles import read_bundle
from jobs.cli import app
from tests.bundles import write_random_bundle
from tests.jobs.audit.conftest import ROWS, config
from tests.jobs.audit.tables import published, stable

EXTRACTED = ("score", "category_confidence", "route_agrees", "error_code", "error_message")


def put(folder: Path, files: dict[str, bytes], **changes: Any) -> None:
    """Write files of a bundle, with digests that match and another bundle.json."""
    manifest = BundleManifest.from_bytes((folder / BUNDLE_FILE).read_bytes())
    digests = manifest.files | {name: sha256(data) for name, data in files.items()}
    described = manifest.model_copy(update={"files": digests, **changes}).to_bytes()
    for name, data in {**files, BUNDLE_FILE: described}.items():
        (folder / name).write_bytes(data)


@pytest.fixture
def copy(bundle: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def exit_of(archive: Path, bundle: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code of the command, and what it says."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # or this process would keep the command's
    words = ["audit", "--manifest", str(archive / "manifest.csv"), "--bundle", str(bundle), "--output", str(output)]
    words += ["--run-date", "2026-01-02", "--shard-rows", "3", "--max-failed", "7"]
    done = CliRunner().invoke(app, words)
    return done.exit_code, " ".join(done.output.split())


def nothing_scored(output: Path) -> dict[str, Any]:
    """The record of a run of which there must be nothing else."""
    folder = output / "runs" / "2026-01-02" / "audit"
    assert not list(output.glob("results/**/*")) and not list(output.glob("heatmaps/**/*"))
    assert not list(folder.glob("shards/*")) and not (folder / "_SUCCESS").exists()
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


@pytest.mark.usefixtures("ray_cluster")
def test_a_good_bundle_passes_and_the_record_says_so(run: tuple[Path, Outcome]) -> None:
    output, _ = run
    record = json.loads((output / "runs" / "2026-01-02" / "audit" / "run.json").read_text())
    passed = record["self_test"]
    assert (passed["images"], passed["extractors"]) == (3, 1)
    assert 0 <= passed["largest_deviation"] < 1e-5
    assert record["warnings"] == []
    # What the test took is not counted among the images of the run.
    assert record["timings"]["stages"]["extract"]["images"] == record["counts"]["status"]["scored"]


@pytest.mark.usefixtures("ray_cluster")
def test_exchanged_autoencoders_end_with_5_and_a_repaired_bundle_is_audited_in_the_same_run(
    archive: Path, bundle: str, copy: Path, run: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gear, tile = ((copy / f"cae_{category}.pth").read_bytes() for category in ("gear", "tile"))
    put(copy, {"cae_gear.pth": tile, "cae_tile.pth": gear})
    code, said = exit_of(archive, copy, tmp_path / "out", monkeypatch)
    assert code == exits.SELF_TEST, said
    assert "reference image references/gear/0 of category gear: score" in said
    assert "exit status 5: the bundle failed its self-test, nothing scored" in said
    record = nothing_scored(tmp_path / "out")
    assert (record["state"], record["exit_code"], record["self_test"]) == ("failed", exits.SELF_TEST, {})
    assert record["exit_reason"].startswith("the bundle failed its self-test on ")
    assert "category gear" in record["exit_reason"]

    put(copy, {"cae_gear.pth": gear, "cae_tile.pth": tile})
    assert audit(config(archive, str(copy), tmp_path / "out")).code == exits.COMMITTED
    assert published(tmp_path / "out").num_rows == ROWS
    assert stable(published(tmp_path / "out")) == stable(published(run[0]))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.campaign
@pytest.mark.parametrize("scoring", ["extractor", "actors"])
def test_another_router_ends_with_5(archive: Path, copy: Path, tmp_path: Path, scoring: str) -> None:
    router: Any = load_pth({ROUTER_FILE: (copy / ROUTER_FILE).read_bytes()}, ROUTER_FILE)
    router["model_state_dict"]["fc.weight"] *= 8  # surer of what it says
    put(copy, {ROUTER_FILE: save_pth(router)})
    with pytest.raises(AuditError, match="routing confidence") as caught:
        audit(config(archive, str(copy), tmp_path / "out", scoring=scoring))
    assert caught.value.code == exits.SELF_TEST
    assert "routing confidence" in nothing_scored(tmp_path / "out")["exit_reason"]


def test_a_dry_run_says_how_many_reference_images_there_are(archive: Path, bundle: str, tmp_path: Path) -> None:
    asked = config(archive, bundle, tmp_path / "out", limit=2)
    preview = dry_run(asked)
    none = read_bundle(str(write_random_bundle(tmp_path / "bundle")))
    assert none.warnings == (NO_REFERENCES,)
    for shown, said in ((preview, "3 reference images"), (replace(preview, bundle=none), "no reference images")):
        with redirect_stdout(io.StringIO()) as out:
            print_plan(asked, shown)
        (line,) = (line for line in out.getvalue().splitlines() if "self-test" in line)
        assert said in line
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------- judging


def decided(bundle: str, **changes: Any) -> pa.Table:
    """What the actors would make of the reference images, with other values for the second of them."""
    rows = [
        {"score": one.score, "category_confidence": one.confidence, "route_agrees": one.routed}
        for one in read_bundle(bundle).references
    ]
    rows[1].update(changes)
    return pa.Table.from_pylist([dict.fromkeys(EXTRACTED) | row for row in rows])


def test_the_reference_shard_is_the_loaded_images(bundle: str) -> None:
    table = reference_shard(read_bundle(bundle))
    assert table["declared_category"].to_pylist() == ["cap", "gear", "tile"]
    assert table["error_stage"].null_count == 3
    for row in table.to_pylist():
        assert (row["width"], row["height"], len(row["pixels"])) == (224, 224, 224 * 224 * 3)
        assert np.frombuffer(row["pixels"], np.uint8).std() > 1


@pytest.mark.parametrize(("images", "scored"), [(2, [0, 0, 0]), (4, [0, 0, 0, 1]), (9, [0, 0, 0, 1, 1, 1])])
def test_every_category_is_tested_before_one_is_tested_again(
    bundle: str, monkeypatch: pytest.MonkeyPatch, images: int, scored: list[int]
) -> None:
    monkeypatch.setattr(module, "IMAGES", images)
    read = read_bundle(bundle)
    assert read.manifest is not None
    twice = [one.model_copy(update={"number": number}) for one in read.references for number in (0, 1)]
    many = replace(read, manifest=read.manifest.model_copy(update={"references": twice}))
    assert [one.number for one in module.chosen(many)] == scored
    assert [one.category for one in module.chosen(many)] == (["cap", "gear", "tile"] * 2)[: len(scored)]


def test_a_reference_image_that_no_longer_decodes_is_a_failure(copy: Path) -> None:
    (copy / "references" / "gear" / "0").write_bytes(b"<html>")
    put(copy, {"references/gear/0": b"<html>"})
    bundle = read_bundle(str(copy))
    row = reference_shard(bundle).to_pylist()[1]
    assert (row["error_stage"], row["error_code"]) == ("decode", "html_document")
    found = judge(bundle, decided(str(copy), score=None, error_code=row["error_code"]))
    assert found.problem is not None and "references/gear/0" in found.problem and "html_document" in found.problem


@pytest.mark.parametrize(("factor", "passes"), [(1.0009, True), (0.9991, True), (1.0011, False), (0.9989, False)])
def test_the_tolerance_is_respected(bundle: str, factor: float, passes: bool) -> None:
    one = read_bundle(bundle)
    found = judge(one, decided(bundle, score=one.references[1].score * factor))
    assert (found.images, found.deviation) == (3, pytest.approx(abs(factor - 1), rel=1e-6))
    assert (found.problem is None) == passes
    if found.problem is not None:
        assert "reference image references/gear/0 of category gear: score" in found.problem
        assert f"{one.references[1].score:.6g} expected" in found.problem and "bundle: tests" in found.problem


# ------------------------------------------------------------------------------------------- several extractors


class Local:
    """A registry in this process, to be asked as an actor is; what happens to it between two questions is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *events: tuple[str, Found]):
        self.registry = Registry(ScorerSettings("top10_mean_224", "cpu", "float32", 1, 1, {"num_cpus": 0}), [], {})
        self.events, self.asked = list(events), 0
        monkeypatch.setattr(module.ray, "get", lambda answer: answer)
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)

    @property
    def self_test(self) -> Any:
        return self

    def remote(self) -> Any:
        self.asked += 1
        if self.events:
            self.registry.tested(*self.events.pop(0))
        return self.registry.self_test()


GOOD, BETTER = Found(3, 2e-6), Found(3, 1e-6)


def test_an_extractor_waits_until_all_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local(monkeypatch, ("a", GOOD), ("a", GOOD), ("b", BETTER), ("c", BETTER))
    await_clearance(local, 3)
    assert local.asked == 4  # the second report of one that was started again does not count twice
    assert module.passed(local) == {"images": 3, "largest_deviation": 2e-6, "extractors": 3}


def test_no_extractor_begins_if_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local(monkeypatch, ("a", GOOD), ("b", Found(3, 0.5, "wrong")), ("c", GOOD))
    with pytest.raises(AuditError, match=r"^wrong$") as caught:
        await_clearance(local, 3)
    assert (caught.value.code, local.asked) == (exits.SELF_TEST, 2)


def test_one_that_fails_when_others_have_scored_is_no_reason_not_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local(monkeypatch, ("a", GOOD), ("b", Found(3, 0.5, "wrong")))
    await_clearance(local, 1)
    local.registry.spent("extract", Spent(0, 0, 0, 3, 0, 0, Counter()), 0)
    with pytest.raises(AuditError, match=r"^after other actors had passed and scored, wrong\. What") as caught:
        await_clearance(local, 2)
    assert caught.value.code == exits.FAILED


def test_one_that_finds_no_place_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    local = Local(monkeypatch, ("a", GOOD))
    await_clearance(local, 2)
    assert local.asked >= 3


def test_nothing_is_told_of_a_test_that_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.passed(Local(monkeypatch)) == {}
