"""Training: from images to a bundle that audits, resumed after a kill; and on the real images where they are."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from PIL import Image

from anomaly_core.bundle import load_pth
from anomaly_core.bundle_manifest import (
    BACKBONE_FILE,
    BUNDLE_FILE,
    BundleError,
    BundleManifest,
    RouterInfo,
    features_file,
)
from anomaly_core.cae import CAE, load_cae
from anomaly_core.cae_training import fit_cae, residual_weights
from anomaly_core.features import random_backbone_state
from anomaly_core.inspector import Inspector
from anomaly_core.metrics import decided, image_auroc
from anomaly_core.preprocess import Preprocessing
from anomaly_core.scoring import CategoryScorer
from anomaly_core.self_test import deviation, moved
from anomaly_core.training import RECIPES, Fitted, Progress, Recipe, parted, split
from jobs.audit.config import AuditConfig
from jobs.audit.run import audit
from jobs.bundles import read_bundle
from jobs.cluster_session import ray_session
from jobs.training import command, config, schedule
from jobs.training import fits as fitting
from jobs.training import train as module
from jobs.training.add import Added, Addition, add_category
from jobs.training.board import ProgressBoard
from jobs.training.category import fit_category, fit_one
from jobs.training.config import TrainingConfig, TrainingError
from jobs.training.extraction import extracted
from jobs.training.fits import fit_and_calibrate, fit_rows, fits_of
from jobs.training.images import TrainingImages, find_images
from jobs.training.router import router_identity
from jobs.training.tasks import TaskRecord, TaskSettings, files_of, finished
from jobs.training.train import train
from jobs.weights import WeightsError
from tests.anomaly_core.files import encode


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with ray_session(512 * 2**20):
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products that nobody could mistake: horizontal and vertical stripes, eight normal images each."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name in ("bar", "column"):
        folder = root / name / "train" / "good"
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(stripes(name, generator)).save(folder / f"{i:02d}.png")
    return root


def stripes(name: str, generator: np.random.Generator) -> np.ndarray:
    wave = (np.sin(np.arange(224) / 6 + generator.uniform(0, 0.3)) * 60 + 128)[:, None]
    picture = np.repeat(wave, 224, axis=1) + generator.normal(0, 4, (224, 224))
    grey = (picture if name == "bar" else picture.T).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def settings(images: Path, output: Path, **others: Any) -> TrainingConfig:
    defaults: dict[str, Any] = {
        "images": str(images),
        "output": str(output),
        "recipe": "small",
        "backbone_weights": "random:0",
        "router_weights": "random:0",
        "precision": "float32",
    }
    return TrainingConfig(**(defaults | others))


@pytest.fixture(scope="module")
def trained(ray_cluster: None, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "bundle"
    boards: list[dict[str, tuple[str, int, int]]] = []
    train(settings(images, output), boards.append)
    assert boards[-1] == dict.fromkeys(("bar", "column", "router"), ("finished", 1, 1))
    return output


@pytest.mark.parametrize(("accuracy", "told"), [(0.5, True), (0.9, False)])
def test_a_router_by_chance_is_told(
    trained: Path, capsys: pytest.CaptureFixture[str], accuracy: float, told: bool
) -> None:
    manifest = BundleManifest.from_bytes((trained / BUNDLE_FILE).read_bytes())
    router = manifest.router.model_copy(update={"training_accuracy": accuracy})
    command.print_bundle(manifest.model_copy(update={"router": router}))
    out = capsys.readouterr().out
    assert f"accuracy on its training images {accuracy:.4f}" in out
    assert ("names the category of only 50 %" in out) == told


def test_trained_bundle_routes_and_finds(trained: Path) -> None:
    inspector = Inspector(read_bundle(str(trained)), "cpu", "float32")
    generator = np.random.default_rng(9)
    for name in ("bar", "column"):
        part = stripes(name, generator)
        good = inspector.inspect(encode(part, "PNG"))
        part[100:124, 60:84] = (200, 30, 30)
        bad = inspector.inspect(encode(part, "PNG"))
        assert (good.category, bad.category) == (name, name)
        assert bad.decision == "anomalous"
        assert bad.score > 3 * good.score
        assert 50 < bad.peak[0] < 94
        assert 90 < bad.peak[1] < 134


def test_bundle_says_what_it_is(trained: Path) -> None:
    bundle = read_bundle(str(trained))
    manifest = bundle.manifest
    assert manifest is not None
    assert manifest.categories == ["bar", "column"]
    assert (manifest.precision, manifest.calibrated_on) == ("float32", "held_out_images")
    assert manifest.recipe["name"] == "small"
    for category in manifest.categories:
        info = manifest.training[category]
        scores = np.array(info.calibration_scores)
        assert (info.images, len(scores)) == (8, 2)
        assert info.threshold == pytest.approx(scores.mean() + 3 * scores.std())
        assert bundle.thresholds[category] == info.threshold
        assert bundle.calibration_scores(category) == info.calibration_scores
    assert json.loads((trained / "thresholds.json").read_text()) == dict(bundle.thresholds)
    assert bundle.known() is None  # of eight images nobody can tell how far apart they lie
    features = load_pth({"f": (trained / features_file("bar")).read_bytes()}, "f")
    assert features["backbone"].shape == (8, 1536)  # type: ignore[index]


def test_with_images_enough_a_bundle_tells_unknown_products(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "bundle"
    shutil.copytree(trained, again)
    (again / BUNDLE_FILE).unlink()
    monkeypatch.setattr(module, "LEAST", 8)
    train(settings(images, again))  # all is there but what tells them
    read = read_bundle(str(again))
    known = read.known()
    assert known is not None
    features = {name: load_pth({"f": (again / features_file(name)).read_bytes()}, "f") for name in read.categories}
    for index, name in enumerate(read.categories):
        distances = known(features[name]["backbone"])  # type: ignore[index]
        assert (distances[:, index] < 1).all() and (distances[:, 1 - index] > 1).all()


def test_bundle_has_reference_images_that_it_scores_as_expected(trained: Path, images: Path) -> None:
    bundle = read_bundle(str(trained))
    inspector = Inspector(bundle, "cpu", "float32")
    assert [(one.category, one.number) for one in bundle.references] == [
        ("bar", 0), ("bar", 1), ("column", 0), ("column", 1)
    ]  # fmt: skip
    for one in bundle.references:
        data = (images / one.category / "train" / "good" / f"{4 * one.number:02d}.png").read_bytes()
        assert (trained / one.file).read_bytes() == data
        seen = inspector.inspect(data)
        assert (seen.category, one.routed) == (one.category, True)
        assert moved(one, routed=True, confidence=seen.confidence, score=seen.score) is None
        assert deviation(one, seen.score) < 1e-5
    assert bundle.warnings == ()


def test_every_image_of_a_fold_is_scored_by_an_autoencoder_that_has_not_seen_it() -> None:
    generator = torch.Generator().manual_seed(0)
    layer2 = torch.rand(4, 512, 28, 28, generator=generator)
    layer3 = torch.rand(4, 1024, 14, 14, generator=generator)
    recipe = replace(RECIPES["small"], held_out=0.0, folds=2)
    stages: list[str] = []

    def say(stage: str) -> Progress:
        stages.append(stage)
        return lambda done, total: None

    asked = TaskSettings("", recipe, "cpu", "float32", 4, "", Preprocessing())
    fitted, weights, scores = fit_and_calibrate(layer2, layer3, asked, say)
    assert weights is None
    assert stages == ["fold 1 of 2", "fold 2 of 2", "autoencoder"]
    unseen = parted(4, 2, seed=4)
    assert sorted(np.concatenate(unseen)) == list(range(4)) and [len(part) for part in unseen] == [2, 2]
    for part in unseen:
        seen = [i for i in range(4) if i not in part]
        one = fit_cae(layer2[seen], layer3[seen], recipe, device="cpu", precision="float32", seed=4)
        scorer = CategoryScorer(load_cae(one.state), "top10_mean_224", "cpu", torch.float32)
        assert scores[part] == pytest.approx(scorer(layer2[part], layer3[part]).score, rel=1e-6)
    whole = CategoryScorer(load_cae(fitted.state), "top10_mean_224", "cpu", torch.float32)(layer2, layer3).score
    assert (whole < 0.9 * scores).all()  # what it has seen it reconstructs better


def some_cae(layer2: Any, layer3: Any, *_: Any, **__: Any) -> Fitted:
    """Another one for other images, without any fitting."""
    torch.manual_seed(int(1000 * layer2[torch.arange(len(layer2))].sum()))
    return Fitted(CAE().eval().state_dict(), [1.0], 0, 0.0)


@pytest.mark.parametrize("folds", [3, 0])
def test_images_are_weighed_by_what_is_left_in_others(folds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "fit_cae", some_cae)
    generator = torch.Generator().manual_seed(0)
    layer2 = torch.rand(8, 512, 28, 28, generator=generator)
    layer3 = torch.rand(8, 1024, 14, 14, generator=generator)
    recipe = replace(RECIPES["small"], folds=folds, held_out=0.5, weighting="residual", layer2_weight=2.0)
    asked = TaskSettings("", recipe, "cpu", "float32", 4, "", Preprocessing())
    fitted, weights, scores = fit_and_calibrate(layer2, layer3, asked, lambda stage: lambda done, total: None)
    if folds:
        parts = parted(8, 3, seed=4)
        seen = [np.setdiff1d(np.arange(8), part) for part in parts]
    else:  # the images held out, in two halves, and one autoencoder
        kept, aside = split(8, 0.5, seed=4)
        parts, seen = [aside[half] for half in parted(4, 2, seed=4)], [kept, kept]
    states = [some_cae(layer2[rows], layer3[rows]).state for rows in seen]
    own = [
        residual_weights(load_cae(state), layer2[part], layer3[part], 2.0)
        for state, part in zip(states, parts, strict=True)
    ]
    assert weights is not None
    assert torch.allclose(weights, torch.stack(own).mean(dim=0), rtol=1e-5)
    expected = {}
    for index, (state, part) in enumerate(zip(states, parts, strict=True)):
        others = torch.stack([one for i, one in enumerate(own) if i != index]).mean(dim=0)
        scorer = CategoryScorer(load_cae(state, weights=others), "top10_mean_224", "cpu", torch.float32)
        expected |= dict(zip(part.tolist(), scorer(layer2[part], layer3[part]).score.tolist(), strict=True))
    assert scores == pytest.approx([expected[i] for i in sorted(expected)], rel=1e-5)
    assert (fitted.state.keys() == states[0].keys()) and len(scores) == (8 if folds else 4)


@pytest.mark.parametrize(
    ("recipe", "threshold", "rule", "folds", "held_out"),
    [
        ("default", None, "conformal:0.01", 5, 0.2),
        ("reference", None, "mean_plus_3sigma", 0, 0.0),
        ("reference", "conformal:0.02", "conformal:0.02", 5, 0.0),  # scores of training images promise nothing
        ("reference", "mean_plus_3sigma", "mean_plus_3sigma", 0, 0.0),
        ("small", "conformal:0.02", "conformal:0.02", 0, 0.25),
    ],
)
def test_a_rule_that_promises_is_given_images_that_were_not_seen(
    recipe: str, threshold: str | None, rule: str, folds: int, held_out: float
) -> None:
    steps = settings(Path("/a"), Path("/b"), recipe=recipe, threshold=threshold).steps
    assert (steps.threshold_rule, steps.folds, steps.held_out) == (rule, folds, held_out)
    assert steps.calibrates_on_training_images == (folds == 0 and held_out == 0)


def test_a_promise_that_the_images_do_not_support_is_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = BundleManifest.from_bytes((trained / BUNDLE_FILE).read_bytes())
    infos = {
        name: info.model_copy(update={"promised_false_rejects": share})
        for (name, info), share in zip(manifest.training.items(), (0.01, 1 / 3), strict=True)
    }
    command.print_bundle(manifest.model_copy(update={"threshold_rule": "conformal:0.01", "training": infos}))
    said = " ".join(capsys.readouterr().out.split())
    assert "too few normal images to promise 1 %; the smallest share that they support was taken: column 33 %" in said
    assert command.train_command({"images": "/a", "output": "/b", "threshold": "f1"}) == 2


def test_thresholds_from_few_scores_are_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = BundleManifest.from_bytes((trained / BUNDLE_FILE).read_bytes())
    command.print_bundle(manifest)
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: thresholds rest on the scores of few normal images (bar 2, column 2): defects may pass" in said
    enough = manifest.training["bar"].model_copy(update={"calibration_scores": [0.1] * 20})
    command.print_bundle(manifest.model_copy(update={"training": {"bar": enough}}))
    assert "few normal images" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def added(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Added]:
    """The images of a third product, and the bundle to which it was added."""
    root = tmp_path_factory.mktemp("added")
    folder = root / "images" / "check" / "train" / "good"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(3)
    for i in range(8):
        Image.fromarray(checks(generator)).save(folder / f"{i:02d}.png")
    found = add_category(Addition(str(trained), str(root / "images"), str(root / "bundle")))
    return root / "images", root / "bundle", found


def checks(generator: np.random.Generator) -> np.ndarray:
    wave = np.sin(np.arange(224) / 6 + generator.uniform(0, 0.3))
    grey = (np.outer(wave, wave) * 90 + 128 + generator.normal(0, 4, (224, 224))).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def test_an_added_category_leaves_the_others_as_they_were(trained: Path, added: tuple[Path, Path, Added]) -> None:
    _, folder, found = added
    old, new = read_bundle(str(trained)), read_bundle(str(folder))
    assert new.categories == ("bar", "check", "column")  # in alphabetical order, which is class order
    for name in ("cae_bar.pth", "cae_column.pth", "backbone.pth", "features/bar.pth"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes()
    assert {c: new.thresholds[c] for c in ("bar", "column")} == dict(old.thresholds)
    assert (found.categories, found.of) == (("check",), 16)
    assert found.routed_after == found.routed_before == 16
    assert found.new_routed == found.new_of == 8
    assert new.manifest is not None and new.manifest.router.added == ["check"]
    assert new.manifest.router.training_accuracy == 1.0
    scores = {one.file: one.score for one in new.references}
    assert {one.file: one.score for one in old.references}.items() <= scores.items()
    assert [one.category for one in new.references] == ["bar", "bar", "check", "check", "column", "column"]
    assert new.warnings == ()
    inspector = Inspector(new, "cpu", "float32")
    generator = np.random.default_rng(11)
    for name, part in (("bar", stripes("bar", generator)), ("column", stripes("column", generator))):
        assert inspector.inspect(encode(part, "PNG")).category == name
    good = checks(generator)
    seen = inspector.inspect(encode(good, "PNG"))
    good[100:124, 60:84] = (200, 30, 30)
    bad = inspector.inspect(encode(good, "PNG"))
    assert (seen.category, bad.category, bad.decision) == ("check", "check", "anomalous")
    assert bad.score > 3 * seen.score


def test_what_was_added_can_be_added_to(added: tuple[Path, Path, Added], images: Path, tmp_path: Path) -> None:
    _, folder, _ = added
    with pytest.raises(TrainingError, match="the bundle has bar, column already"):
        add_category(Addition(str(folder), str(images), str(tmp_path)))
    (tmp_path / "link").symlink_to(folder)
    for same in (f"{folder}/", str(tmp_path / "link")):
        with pytest.raises(TrainingError, match="is the bundle itself"):
            add_category(Addition(str(folder), str(images), same))
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "features" / "check.pth").unlink()
    with pytest.raises(TrainingError, match=r"features/check\.pth is not there"):
        add_category(Addition(str(tmp_path / "copy"), str(images), str(tmp_path / "out")))
    (tmp_path / "copy" / "features" / "check.pth").write_bytes(b"x")
    with pytest.raises(TrainingError, match=r"features/check\.pth was changed"):
        add_category(Addition(str(tmp_path / "copy"), str(images), str(tmp_path / "out")))


def test_nothing_is_added_to_a_bundle_that_fails_its_self_test(
    trained: Path, added: tuple[Path, Path, Added], tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "bundle")
    manifest = BundleManifest.from_bytes((trained / BUNDLE_FILE).read_bytes())
    wrong = [one.model_copy(update={"score": 1.01 * one.score}) for one in manifest.references[:1]]
    changed = manifest.model_copy(update={"references": [*wrong, *manifest.references[1:]]})
    (tmp_path / "bundle" / BUNDLE_FILE).write_bytes(changed.to_bytes())
    with pytest.raises(
        TrainingError, match=r"fails its self-test here, .*bar.*0\.99 % away where 0\.1 % are tolerated"
    ):
        add_category(Addition(str(tmp_path / "bundle"), str(added[0]), str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("lost", ["cae_bar.pth", "features/bar.pth", "features/router.pth"])
def test_a_task_one_of_whose_files_is_lost_or_changed_is_not_finished(
    trained: Path, images: Path, tmp_path: Path, lost: str
) -> None:
    shutil.copytree(trained, tmp_path / "bundle")
    asked = settings(images, tmp_path / "bundle")
    found = find_images(asked.images, ())
    task, of = ("router", found) if "router" in lost else ("bar", found[:1])
    identity = router_identity(found) if task == "router" else found[0].identity
    uris = [uri for one in of for uri in one.uris]
    inputs = json.loads((trained / "training" / f"{task}.json").read_bytes())["inputs"]
    steps = TaskSettings(asked.output, asked.steps, "cpu", "float32", 0, inputs, Preprocessing())
    assert finished(steps, task, identity, uris) is not None
    (tmp_path / "bundle" / lost).write_bytes(b"x")
    assert finished(steps, task, identity, uris) is None
    (tmp_path / "bundle" / lost).unlink()
    assert finished(steps, task, identity, uris) is None


def test_no_category_may_share_a_file_with_the_training(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "bar").rename(tmp_path / "images" / "Router")
    with pytest.raises(TrainingError, match="/Router: no category can be called that"):
        train(settings(tmp_path / "images", tmp_path / "bundle"))


def test_finished_categories_are_not_trained_again(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "bundle"
    for path in trained.rglob("*"):
        if path.is_file() and path.name not in ("bundle.json", "cae_column.pth"):
            target = again / path.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    with pytest.raises(BundleError, match=f"^{again}: training has not finished; the same line-audit train command"):
        read_bundle(str(again))
    asked: list[list[str]] = []
    run = module.run_tasks

    def watched(todo: list[Any], all_images: Any, *rest: Any) -> Any:
        asked.append([one.category for one in todo] + (["router"] if all_images else []))
        return run(todo, all_images, *rest)

    monkeypatch.setattr(module, "run_tasks", watched)
    train(settings(images, again))
    assert asked == [["column"]]
    assert (again / "cae_bar.pth").read_bytes() == (trained / "cae_bar.pth").read_bytes()
    assert read_bundle(str(again)).thresholds == pytest.approx(dict(read_bundle(str(trained)).thresholds), rel=1e-6)


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of these tests, with two autoencoders to calibrate with and one to keep."""
    recipe = replace(RECIPES["small"], held_out=0.0, folds=2)
    monkeypatch.setitem(config.RECIPES, "small", recipe)
    return recipe


def steps_of(output: Path, recipe: Recipe, inputs: str = "") -> TaskSettings:
    return TaskSettings(str(output), recipe, "cpu", "float32", 0, inputs, Preprocessing())


def in_folder(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}


def test_a_training_that_was_killed_fits_only_what_is_not_there(
    trained: Path, images: Path, tmp_path: Path, folded: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router and one category were done, and of the other one of three autoencoders; something is left of a fit
    whose record was never written."""
    output = tmp_path / "bundle"
    shutil.copytree(trained, output)
    monkeypatch.setattr(module, "_inputs", lambda *_: "the same")
    for task in ("column", "router"):
        record = output / "training" / f"{task}.json"
        record.write_text(json.dumps(json.loads(record.read_bytes()) | {"inputs": "the same"}))
    (output / "training" / "bar.json").unlink()
    found = in_folder(output)
    bar, _ = find_images(str(images), ())
    backbone: Any = load_pth({"f": (output / BACKBONE_FILE).read_bytes()}, "f")
    # As many threads as before, here and below: what a random backbone settles on, in other tests, depends on them.
    fit_one(bar, 1, backbone, "v1.5", steps_of(output, folded, "the same"), torch.get_num_threads(), MagicMock())
    before = output / "training" / "bar" / "1.json"
    figures = json.loads(before.read_bytes())
    before.write_text(json.dumps(figures | {"info": figures["info"] | {"seconds": 10_000.0}}))
    (before.parent / "2.pth").write_bytes(b"of a fit whose record was never written")
    (before.parent / f".0-{32 * 'a'}.tmp").write_bytes(b"of a writer that was killed")
    boards: list[dict[str, tuple[str, int, int]]] = []
    manifest = train(settings(images, output), boards.append)
    info = manifest.training["bar"]
    assert (info.folds, len(info.calibration_scores)) == (2, 8)
    assert 10_000 < info.seconds < 10_100  # what was there was taken as it was
    assert in_folder(output) == found | {"training/bar.json"}
    assert not before.parent.exists()
    assert boards[0] == dict.fromkeys(("column", "router"), ("finished before", 1, 1))
    fits = [
        (done, total) for board in boards for stage, done, total in [board.get("bar", ("", 0, 0))] if "fits" in stage
    ]
    assert (min(fits), max(fits)) == ((15, 45), (45, 45))
    assert boards[-1]["bar"] == ("finished", 1, 1)


def test_what_one_task_fits_is_what_all_in_one_would(images: Path, tmp_path: Path, folded: Recipe) -> None:
    shutil.copytree(images / "bar", tmp_path / "images" / "bar")
    [bar] = find_images(str(tmp_path / "images"), ())
    steps = steps_of(tmp_path, replace(folded, weighting="residual"))
    backbone = random_backbone_state(torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    records = [
        fit_one(bar, number, backbone, "v1.5", steps, torch.get_num_threads(), MagicMock()) for number in range(3)
    ]
    with extracted(bar.uris, backbone, "v1.5", steps) as found:
        for record, fit in zip(records, fits_of(8, folded, 0), strict=True):
            (data,) = files_of(steps, record).values()
            expected = fit_rows(found.layer2, found.layer3, fit, steps, lambda stage: lambda done, total: None)
            state: Any = load_pth({"f": data}, "f")
            for key, value in expected.state.items():
                assert torch.allclose(state[key], value, rtol=1e-3, atol=1e-5), (fit.stage, key)
        kept, _, scores = fit_and_calibrate(found.layer2, found.layer3, steps, lambda stage: lambda done, total: None)
    info = fit_category(bar, backbone, "v1.5", steps, torch.get_num_threads(), MagicMock(), *records)
    assert info.losses == pytest.approx(kept.losses, rel=1e-4)
    assert info.calibration_scores == pytest.approx(sorted(scores), rel=1e-3)

    first = Path(bar.uris[0])
    before = first.read_bytes()
    shutil.copyfile(bar.uris[1], first)
    with pytest.raises(TrainingError, match="bar: its images were changed while it was trained"):
        fit_category(bar, backbone, "v1.5", steps, torch.get_num_threads(), MagicMock(), *records)
    first.write_bytes(before)

    path = tmp_path / "training" / "bar" / "0.pth"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TrainingError, match=r"training/bar/0\.pth is not there as it was written; --output must be"):
        fit_category(bar, backbone, "v1.5", steps, torch.get_num_threads(), MagicMock(), *records)
    path.unlink()
    with pytest.raises(TrainingError, match=r"training/bar/0\.pth is not there as it was written"):
        fit_category(bar, backbone, "v1.5", steps, torch.get_num_threads(), MagicMock(), *records)


def fail_or_wait(images: TrainingImages, number: int, *_: Any) -> None:
    """Instead of ``fit_one``: the second fit fails, and the others wait until the images are gone, as they are with the
    test's folder."""
    if number == 1:
        raise TrainingError(f"{images.uris[0]}: no good")
    interrupts = 0
    while Path(images.uris[0]).exists():
        try:
            time.sleep(0.1)
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts == 2:  # the first one is lost, as one that comes too early is
                raise
    raise TrainingError("this one was waited for")


@pytest.mark.usefixtures("ray_cluster", "folded")
def test_what_fails_is_told_before_other_fits_end_and_cancels_them(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(images / "bar", tmp_path / "images" / "bar")
    monkeypatch.setattr(schedule, "fit_one", fail_or_wait)
    monkeypatch.setattr(schedule, "fit_all", fail_or_wait)  # not called: it is finished
    monkeypatch.setattr(module, "look", lambda settings, task, *_: ROUTED if task == "router" else None)
    try:
        with pytest.raises(Exception, match=r"00\.png: no good"):
            train(settings(tmp_path / "images", tmp_path / "bundle"))
        deadline = time.monotonic() + 60
        while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
            assert time.monotonic() < deadline, "the others were not cancelled"
            time.sleep(0.2)
    finally:
        shutil.rmtree(tmp_path / "images")


ROUTED = TaskRecord(
    inputs="", images="", files={}, info=RouterInfo(source="", frozen_norms=0, losses=[], seconds=0).model_dump()
)


@pytest.mark.parametrize(
    ("counts", "recipe", "cpus", "gpus", "device", "threads"),
    [
        ([320], "default", 2, 0, "cpu", [1, 1, 1, 1, 1, 1]),
        ([320], "default", 16, 0, "cpu", [2, 2, 2, 2, 2, 3]),
        ([320], "reference", 16, 0, "cpu", [4]),
        ([5000, 100], "default", 8, 0, "cpu", [4, 1, 1, 1, 1, 1, 1]),
        ([320, 267, 209], "default", 8, 2, "cuda", [4] * 18),
        ([320, 267, 209], "default", 2, 1, "cuda", [2] * 18),
    ],
)
def test_larger_fits_have_more_threads(
    counts: list[int],
    recipe: str,
    cpus: int,
    gpus: int,
    device: str,
    threads: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule.ray, "cluster_resources", lambda: {"CPU": float(cpus), "GPU": float(gpus)})
    monkeypatch.setattr(schedule, "working_nodes", lambda: [{"Resources": {"CPU": float(cpus), "GPU": float(gpus)}}])
    some = [TrainingImages(f"c{i}", ("/x",) * count, "") for i, count in enumerate(counts)]
    plans = [schedule.Plan(one, fits_of(len(one.uris), RECIPES[recipe], 0), {}) for one in some]
    shares = schedule.Shares.of(plans, device)
    assert [shares.threads(len(fit.rows)) for plan in plans for fit in plan.fits] == threads


@pytest.mark.parametrize(("nodes", "most"), [([2, 2, 2], 2), ([3, 16], 4), ([], 1)])
def test_no_task_asks_for_more_cpus_than_a_node_has(
    nodes: list[int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule.ray, "cluster_resources", lambda: {"CPU": float(sum(nodes) or 1)})
    monkeypatch.setattr(schedule, "working_nodes", lambda: [{"Resources": {"CPU": float(one)}} for one in nodes])
    plan = schedule.Plan(TrainingImages("c", ("/x",) * 320, ""), fits_of(320, RECIPES["reference"], 0), {})
    shares = schedule.Shares.of([plan], "cpu")
    assert (shares.most, shares.threads(320)) == (most, most)
    gpu = {"Resources": {"CPU": 2.0, "GPU": 1.0}}
    monkeypatch.setattr(schedule, "working_nodes", lambda: [gpu, {"Resources": {"CPU": 16.0}}])
    assert schedule.Shares.of([plan], "cuda").most == 2


def test_the_same_images_elsewhere_are_no_reason_to_train_again(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "bundle")
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    path = tmp_path / "copy" / "bar" / "train" / "good" / "03.png"
    assert path.stat().st_mtime != (images / "bar" / "train" / "good" / "03.png").stat().st_mtime
    monkeypatch.setattr(module, "run_tasks", MagicMock(side_effect=TrainingError("something is to do")))
    boards: list[dict[str, tuple[str, int, int]]] = []
    train(settings(tmp_path / "copy", tmp_path / "bundle"), boards.append)
    assert boards == [dict.fromkeys(("bar", "column", "router"), ("finished before", 1, 1))]
    assert (tmp_path / "bundle" / BUNDLE_FILE).read_bytes() == (trained / BUNDLE_FILE).read_bytes()
    (tmp_path / "bundle" / "thresholds.json").write_text("{}")
    train(settings(tmp_path / "copy", tmp_path / "bundle"))  # a file was changed: the bundle is put together again
    assert (tmp_path / "bundle" / "thresholds.json").read_bytes() == (trained / "thresholds.json").read_bytes()

    copied = find_images(str(tmp_path / "copy"), ())
    inputs = json.loads((trained / "training" / "bar.json").read_bytes())["inputs"]
    steps = steps_of(tmp_path / "bundle", RECIPES["small"], inputs)
    assert [finished(steps, one.category, one.identity, one.uris) is not None for one in copied] == [True, True]
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # as long as before
    path.write_bytes(data)
    assert [finished(steps, one.category, one.identity, one.uris) is not None for one in copied] == [False, True]
    path.unlink()
    assert finished(steps, "bar", copied[0].identity, copied[0].uris) is None


def test_progress_of_fits_side_by_side_is_one_line_that_never_goes_back() -> None:
    board = ProgressBoard()
    board.fit("screw", 0, 6, 120, 0)
    assert board.read() == {"screw": ("epochs of 6 fits", 0, 720)}
    board.fit("screw", 0, 6, 120, 100)
    board.fit("screw", 5, 6, 120, 0)
    board.fit("screw", 4, 6, 120, 20)
    board.fit("screw", 0, 6, 120, 1)  # begun again elsewhere
    assert board.read() == {"screw": ("epochs of 6 fits", 120, 720)}
    board.write("screw", "calibration", 4, 320)
    board.fit("screw", 4, 6, 120, 30)  # came late
    assert board.read() == {"screw": ("calibration", 4, 320)}


def test_wrong_requests_are_named(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no images for screw; there are bar, column"):
        train(settings(images, tmp_path, categories=("screw",)))
    with pytest.raises(TrainingError, match="train/good"):
        train(settings(tmp_path, tmp_path / "out"))
    few = TrainingImages("bar", ("/a", "/b"), "")
    with pytest.raises(TrainingError, match=r"^bar: 2 images are too few to hold out 0\.25 of them: two at least are"):
        schedule.planned(few, steps_of(tmp_path, RECIPES["small"]))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainingError, match=f"--output {tmp_path}/file cannot be written"):
        train(settings(images, tmp_path / "file", backbone_weights=str(tmp_path / "none.pth")))
    with pytest.raises(WeightsError, match=r"none\.pth"):
        train(settings(images, tmp_path, backbone_weights=str(tmp_path / "none.pth")))


@pytest.mark.usefixtures("ray_cluster")
def test_broken_training_image_is_named(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images" / "bar" / "train" / "good"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.png").write_bytes((images / "bar" / "train" / "good" / f"0{i}.png").read_bytes())
    (folder / "9.png").write_bytes(b"")
    with pytest.raises(Exception, match=r"9\.png: empty_object"):
        train(settings(tmp_path / "images", tmp_path / "bundle"))
    assert not (tmp_path / "bundle" / "bundle.json").exists()


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.usefixtures("ray_cluster")
def test_reference_recipe_on_real_images(shared_root: Path, tmp_path: Path) -> None:
    """Some of the normal images of bottle and screw; the whole sets, and their figures, are a benchmark's business."""
    source = shared_root / "data" / "mvtec224"
    for category, count in (("bottle", 14), ("screw", 4)):
        folder = tmp_path / "images" / category / "train" / "good"
        folder.mkdir(parents=True)
        for path in sorted((source / category / "train" / "good").iterdir())[:count]:
            (folder / path.name).symlink_to(path)
    weights = shared_root / "weights"
    train(
        settings(
            tmp_path / "images",
            tmp_path / "bundle",
            recipe="reference",
            backbone_weights=str(weights / "resnet50_v1_caffe_imagenet_conv1_to_layer3.pth"),
            backbone_form="v1",
            router_weights=str(weights / "resnet18_imagenet_bn_folded_without_layer4_convs.pth"),
            precision="auto",
        )
    )
    tests = [
        p for c, step in (("bottle", 2), ("screw", 20)) for p in sorted((source / c / "test").rglob("*.png"))[::step]
    ]
    (tmp_path / "m.csv").write_text("uri\n" + "".join(f"{p}\n" for p in tests))
    config = AuditConfig(
        manifest=str(tmp_path / "m.csv"),
        bundle=str(tmp_path / "bundle"),
        output=str(tmp_path / "out"),
        run_date="2026-01-02",
        allow=(str(source),),
    )
    assert audit(config).code == 0
    rows = pq.read_table(tmp_path / "out/results/run_date=2026-01-02/audit.parquet", partitioning=None).to_pylist()
    assert len(rows) == 42 + 8
    truth = {str(p): (p.parts[-4], p.parts[-2] != "good") for p in tests}
    routed = [row["category"] == truth[row["uri"]][0] for row in rows]
    assert all(routed)
    bottle = [row for row in rows if row["category"] == "bottle"]
    defective = [truth[row["uri"]][1] for row in bottle]
    assert image_auroc(defective, [row["score"] for row in bottle]) >= 0.97
    found = decided(defective, [row["decision"] for row in bottle])
    # Few images, and a threshold from images that the autoencoder has seen: with 24 of them 14 of 63 escaped.
    assert (found.false_rejects.of, found.escapes.of) == (10, 32)
    assert found.false_rejects.count <= 1 and found.escapes.count <= 13
