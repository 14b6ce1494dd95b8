"""An evaluation of drawn images: every figure and file, held against the inspector on the same bytes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_cdt, distance_transform_edt, label
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from anomaly_core.inspector import Inspection, Inspector
from anomaly_core.preprocess import Preprocessing
from jobs.bundles import read_bundle
from jobs.cli import app
from jobs.evaluation.images import EvaluationError, find_test_images, read_mask
from jobs.evaluation.judge import decode_test_image
from tests.bundles import random_pixels, write_random_bundle

CATEGORIES = ("cap", "gear")
KINDS = {"good": 4, "scratch <b>": 3, "dent": 2}
WITHOUT_MASK = "gear/test/dent/1.png"


@dataclass(frozen=True)
class Ground:
    images: Path
    bundle: Path
    output: Path
    said: str
    truth: dict[str, tuple[Inspection, Inspection]]
    """Of each image of a known category: as routed, and by its own category."""


def draw(folder: Path) -> None:
    pixels = iter(random_pixels(40, seed=5))
    for category in (*CATEGORIES, "tile"):
        for kind, count in KINDS.items():
            for number in range(count):
                path = folder / category / "test" / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(next(pixels)).save(path)
                mask = folder / category / "ground_truth" / kind / f"{number}_mask.png"
                if kind != "good" and str(path.relative_to(folder)) != WITHOUT_MASK:
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    area = np.zeros((112, 112), dtype=np.uint8)
                    area[20 * number : 20 * number + 30, 10:50] = 255
                    Image.fromarray(area).save(mask)
    for name in ("train/good/0.png", "test/dent/deep/2.png"):
        (folder / "cap" / name).parent.mkdir(parents=True)
        (folder / "cap" / name).write_bytes(b"never read")


def inspections(bundle: Path, images: Path) -> dict[str, tuple[Inspection, Inspection]]:
    inspector = Inspector(read_bundle(str(bundle)), "cpu", "float32")
    found = {}
    for path in sorted(images.glob("*/test/*/*.png")):
        category = path.relative_to(images).parts[0]
        if category in CATEGORIES:
            data = path.read_bytes()
            own = inspector.inspect(data, category=category)
            found[str(path.relative_to(images))] = inspector.inspect(data), own
    return found


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    root = tmp_path_factory.mktemp("evaluate")
    draw(root / "images")
    first = inspections(write_random_bundle(root / "first", CATEGORIES), root / "images")
    thresholds = {
        category: float(
            np.median([own.score for path, (_, own) in first.items() if path.startswith(category)]) * 1.0001
        )
        for category in CATEGORIES
    }
    bundle = write_random_bundle(root / "bundle", CATEGORIES, threshold=thresholds)
    arguments = ["evaluate", "--bundle", bundle, "--images", root / "images", "--output", root / "out", "--worst", 2]
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    truth = inspections(bundle, root / "images")
    return Ground(root / "images", bundle, root / "out", result.output, truth)


def rows(ground: Ground) -> list[dict[str, Any]]:
    return duckdb.sql(f"SELECT * FROM '{ground.output}/images.parquet'").to_arrow_table().to_pylist()


def from_mask(ground: Ground, path: str, found: Inspection) -> float | None:
    """How far the peak is from the mask, in pixels of an image of 224 x 224; None without a mask."""
    mask = ground.images / path.replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
    if not mask.exists():
        return None
    area = np.asarray(Image.open(mask).resize((224, 224), Image.Resampling.NEAREST)) > 0
    return float(distance_transform_edt(~area)[int(found.peak[1]), int(found.peak[0])])


def test_every_image_is_a_row_as_the_inspector_says(ground: Ground) -> None:
    found = {row["path"]: row for row in rows(ground)}
    assert len(found) == 3 * sum(KINDS.values())
    for path, (routed, own) in ground.truth.items():
        row = found[path]
        category, _, defect, _ = path.split("/")
        assert (row["category"], row["defect"], row["defective"]) == (category, defect, defect != "good")
        assert (row["routed"], row["decision"], row["decision_reason"]) == (
            routed.category,
            routed.decision,
            routed.reason,
        )
        assert row["confidence"] == pytest.approx(routed.confidence, rel=1e-5)
        assert row["score"] == pytest.approx(own.score, rel=1e-5)
        assert row["routed_score"] == pytest.approx(routed.score, rel=1e-5)
        assert (row["logit_margin"] > 0) == (routed.category == category)
    assert {row["score"] for row in found.values() if row["category"] == "tile"} == {None}
    # The router is a random one: some images go wrong, which is what makes the rows worth comparing.
    assert {row["routed"] == row["category"] for row in found.values()} == {True, False}


def test_the_figures_are_those_of_the_rows(ground: Ground) -> None:
    found = json.loads((ground.output / "evaluation.json").read_bytes())
    assert list(found["categories"]) == list(CATEGORIES)
    for category in CATEGORIES:
        figures = found["categories"][category]
        own = [one for path, (_, one) in ground.truth.items() if path.startswith(category)]
        routed = [one for path, (one, _) in ground.truth.items() if path.startswith(category)]
        bad = ["/good/" not in path for path in ground.truth if path.startswith(category)]
        assert figures["auroc"] == pytest.approx(roc_auc_score(bad, [one.score for one in own]))
        escapes = sum(one.score < one.threshold for one, wrong in zip(own, bad, strict=True) if wrong)
        rejects = sum(one.score >= one.threshold for one, wrong in zip(own, bad, strict=True) if not wrong)
        assert figures["at_threshold"]["escapes"]["count"] == escapes
        assert figures["at_threshold"]["false_rejects"] | {"low": 0, "high": 0} == {
            "count": rejects, "of": 4, "rate": rejects / 4, "low": 0, "high": 0,
        }  # fmt: skip
        passed = sum(one.decision == "normal" for one, wrong in zip(routed, bad, strict=True) if wrong)
        assert figures["end_to_end"]["escapes"]["count"] == passed
        right = sum(one.category == category for one, wrong in zip(routed, bad, strict=True) if wrong)
        assert figures["routing"]["defective"]["count"] == right
        assert {kind: one["images"] for kind, one in figures["defects"].items()} == {"scratch <b>": 3, "dent": 2}
        assert sum(one["escapes"]["count"] for one in figures["defects"].values()) == escapes
        assert 0 < figures["aupro"] < 1 and 0 < figures["pixel_auroc"] < 1
        away = {
            path: from_mask(ground, path, one) for path, (_, one) in ground.truth.items() if path[:3] == category[:3]
        }
        known = [distance for distance in away.values() if distance is not None]
        pointing = {name: (one["count"], one["of"]) for name, one in figures["pointing"].items()}
        assert pointing == {
            name: (sum(d <= most for d in known), len(known)) for name, most in (("hits", 0), ("near", 15))
        }
    assert (found["categories"]["cap"]["masks"], found["categories"]["gear"]["masks"]) == (9, 8)
    assert found["summary"]["mean"]["auroc"] == pytest.approx(
        np.mean([found["categories"][category]["auroc"] for category in CATEGORIES])
    )


def test_unknown_categories_are_told_apart(ground: Ground) -> None:
    found = json.loads((ground.output / "evaluation.json").read_bytes())["unknown"]
    tiles = [row for row in rows(ground) if row["category"] == "tile"]
    assert found["tile"]["images"] == 9
    assert found["tile"]["called_unknown"]["count"] == 0  # the bundle cannot tell
    assert found["tile"]["passed"]["count"] == sum(row["decision"] == "normal" for row in tiles)
    assert found["tile"]["routed_to"] == dict(Counter(row["routed"] for row in tiles))


def test_the_metrics_table_says_the_same(ground: Ground) -> None:
    found = json.loads((ground.output / "evaluation.json").read_bytes())
    sql = f"SELECT value, count, of FROM '{ground.output}/metrics.parquet' WHERE category = 'gear' AND "
    assert duckdb.sql(sql + "metric = 'aupro'").fetchall() == [(found["categories"]["gear"]["aupro"], None, None)]
    escapes = found["categories"]["gear"]["defects"]["dent"]["escapes"]
    assert duckdb.sql(sql + "metric = 'escapes' AND defect = 'dent'").fetchall() == [
        (escapes["rate"], escapes["count"], 2)
    ]


def test_the_worst_misses_are_pictures(ground: Ground) -> None:
    expected = set()
    for category in CATEGORIES:
        own = [(path, one) for path, (_, one) in ground.truth.items() if path.startswith(category)]
        for kind, misses in (
            ("escape", [path for path, one in own if "/good/" not in path and one.margin < 1]),
            ("false_reject", [path for path, one in own if "/good/" in path and one.margin >= 1]),
        ):
            expected |= {f"{category}/{kind}-{n + 1}.png" for n in range(min(2, len(misses)))}
    overlays = ground.output / "overlays"
    assert {str(path.relative_to(overlays)) for path in overlays.rglob("*.png")} == expected and expected
    lowest = min(
        (one.margin, path) for path, (_, one) in ground.truth.items() if path[:3] == "cap" and "/good/" not in path
    )[1]
    pair = np.asarray(Image.open(overlays / "cap" / "escape-1.png"))
    outlined = np.array(Image.open(ground.images / lowest))
    mask = lowest.replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
    large = np.asarray(Image.open(ground.images / mask).convert("L").resize((224, 224), Image.Resampling.NEAREST))
    away = distance_transform_cdt(large == 0, "taxicab")
    outlined[(away > 0) & (away <= 2)] = (0, 200, 255)
    assert np.array_equal(pair[:, :224], outlined)
    assert np.array_equal(pair[:, 224:], ground.truth[lowest][1].overlay)


def test_the_page_and_markdown_hold_the_tables_and_names_as_text(ground: Ground) -> None:
    html, text = (ground.output / "report.html").read_text(), (ground.output / "evaluation.md").read_text()
    auroc = json.loads((ground.output / "evaluation.json").read_bytes())["categories"]["cap"]["auroc"]
    assert f"{auroc:.4f}" in html and f"| cap | 9 | {auroc:.4f} |" in text
    assert all(
        "A mean is over the categories that have the figure, each counted alike." in words for words in (html, text)
    )
    assert "scratch &lt;b&gt;" in html and "scratch <b>" not in html.split("</script>", 1)[1].split("<script", 1)[0]
    assert html.split("</script>", 1)[1].count("data:image/png;base64,") == len(
        list((ground.output / "overlays").rglob("*.png"))
    )
    assert "http://" not in html.split("</script>", 1)[1] and 'src="http' not in html


def test_what_the_command_says(ground: Ground) -> None:
    assert f"report: {ground.output}/report.html" in ground.said
    assert (
        "1 images are left out: not at <category>/test/<defect>/<name>, such as cap/test/dent/deep/2.png"
        in " ".join(ground.said.split())
    )
    assert f"1 defective images have no mask, such as {WITHOUT_MASK}" in " ".join(ground.said.split())


def test_one_category_alone(ground: Ground, tmp_path: Path) -> None:
    arguments = ["evaluate", "--bundle", ground.bundle, "--images", ground.images, "--output", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in (*arguments, "--categories", "gear", "--worst", 0)])
    assert result.exit_code == 0
    found, whole = (json.loads((out / "evaluation.json").read_bytes()) for out in (tmp_path / "out", ground.output))
    assert found["categories"] == {"gear": whole["categories"]["gear"]}
    assert not (tmp_path / "out" / "overlays").exists()


def test_an_output_that_is_used_again_holds_one_evaluation(ground: Ground, tmp_path: Path) -> None:
    out = Path(shutil.copytree(ground.output, tmp_path / "out"))
    ours = {path.name for path in (out / "overlays" / "gear").iterdir()}
    for name in ("gear/escape-9.png", "gear/notes.txt", "gear/escape-9.png.bak", "gone/false_reject-1.png"):
        (out / "overlays" / name).parent.mkdir(exist_ok=True)
        (out / "overlays" / name).write_bytes(b"")
    arguments = ["evaluate", "--bundle", ground.bundle, "--images", ground.images, "--output", out]
    result = CliRunner().invoke(app, [str(word) for word in (*arguments, "--categories", "gear", "--worst", 2)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (out / "overlays").iterdir()} == {"gear"}
    assert {path.name for path in (out / "overlays" / "gear").iterdir()} == {*ours, "notes.txt", "escape-9.png.bak"}


# ----------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--categories", "screw"], "no test images for screw; there are cap, gear, tile"),
        (["--categories", "tile"], "none of its categories is in the bundle, which has cap, gear"),
        (["--precision", "bfloat16"], "calibrated in float32, not bfloat16"),
    ],
)
def test_wrong_requests_are_named(ground: Ground, tmp_path: Path, options: list[str], told: str) -> None:
    arguments = ["evaluate", "--bundle", ground.bundle, "--images", ground.images, "--output", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in (*arguments, *options)])
    assert result.exit_code == 2 and told in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_named_and_nothing_is_written(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "images" / "cap" / "test" / "good" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>")
    arguments = ["evaluate", "--bundle", ground.bundle, "--images", tmp_path / "images", "--output", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exit_code == 2 and f"{path}: html" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
    with pytest.raises(EvaluationError, match="take the image out of the test set"):
        decode_test_image(find_test_images(str(tmp_path / "images"))[0][0], Preprocessing())


def test_a_folder_without_test_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cap" / "train" / "good").mkdir(parents=True)
    (tmp_path / "cap" / "train" / "good" / "0.png").write_bytes(b"1")
    with pytest.raises(EvaluationError, match="no images at <category>/test/<defect>/"):
        find_test_images(str(tmp_path))


def laid_out(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    return str(folder)


def test_images_outside_of_the_layout_are_told(tmp_path: Path) -> None:
    astray = ["cap/Test/dent/0.png", "cap/test/1.png", "cap/test/scratch/deep/2.png", "more/cap/test/dent/0.png"]
    others = ["cap/ground_truth/test/0.png", "cap/test/readme.txt", "cap/train/good/0.png", "test/train/good/0.png"]
    uri = laid_out(tmp_path, "cap/test/scratch/0.png", "gear/test/good/0.png", "gear/test/1.png", *astray, *others)
    images, left_out = find_test_images(uri)
    assert [image.path for image in images] == ["cap/test/scratch/0.png", "gear/test/good/0.png"]
    assert sorted(left_out) == sorted([*astray, "gear/test/1.png"])
    assert find_test_images(uri, ["gear"])[1] == ["gear/test/1.png"]


def test_good_in_another_case_is_refused(tmp_path: Path) -> None:
    uri = laid_out(tmp_path, "cap/test/good/0.png", "cap/test/Good/3.png", "gear/test/good/0.png")
    with pytest.raises(EvaluationError, match="are the parts in cap/test/Good good or defective"):
        find_test_images(uri)
    assert len(find_test_images(uri, ["gear"])[0]) == 1


def test_masks_are_read_at_the_size_of_the_models(tmp_path: Path) -> None:
    area = np.zeros((448, 448), dtype=np.uint8)
    area[100:200, 300:400] = 1  # any value above 0
    Image.fromarray(area).save(tmp_path / "m.png")
    mask = read_mask(str(tmp_path / "m.png"))
    assert mask.shape == (224, 224) and mask.sum() == 50 * 50 and mask[50:100, 150:200].all()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(EvaluationError, match=r"bad\.png: not a mask"):
        read_mask(str(tmp_path / "bad.png"))


def test_a_thin_defect_is_not_lost(tmp_path: Path) -> None:
    area = np.zeros((1024, 600), dtype=np.uint8)
    area[14, 20:300] = area[300:902, 34:36] = 255  # between the nearest pixels, in both directions
    Image.fromarray(area).save(tmp_path / "m.png")
    assert not np.asarray(Image.fromarray(area).resize((224, 224), Image.Resampling.NEAREST)).any()
    expected = np.zeros((224, 224), dtype=bool)
    for y, x in zip(*np.nonzero(area), strict=True):
        for row in range(224):
            if row * 1024 < (y + 1) * 224 and y * 224 < (row + 1) * 1024:
                for column in (x * 224 // 600, ((x + 1) * 224 - 1) // 600):
                    expected[row, column] = True
    mask = read_mask(str(tmp_path / "m.png"))
    assert np.array_equal(mask, expected) and label(mask, np.ones((3, 3)))[1] == 2
    Image.fromarray(np.zeros_like(area)).save(tmp_path / "m.png")
    assert not read_mask(str(tmp_path / "m.png")).any()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_masks_with_transparency_are_refused(tmp_path: Path, mode: str) -> None:
    area = Image.new("L", (300, 300), 255)
    seen = Image.new("L", (300, 300), 255)
    picture = Image.merge("LA", (area, seen)).convert("RGBA" if mode == "P" else mode)
    picture.save(tmp_path / "opaque.png")
    assert read_mask(str(tmp_path / "opaque.png")).all()
    seen.paste(0, (0, 0, 100, 100))
    picture.putalpha(seen)
    (picture.quantize(8) if mode == "P" else picture).save(tmp_path / "clear.png")
    with pytest.raises(EvaluationError, match=r"clear\.png: the mask is transparent in part; save it opaque"):
        read_mask(str(tmp_path / "clear.png"))


def test_masks_of_good_parts_are_left_alone(tmp_path: Path) -> None:
    masks = [f"cap/ground_truth/{kind}/0_mask.png" for kind in ("good", "dent")]
    images, _ = find_test_images(laid_out(tmp_path, "cap/test/good/0.png", "cap/test/dent/0.png", *masks))
    found = {image.defect: image.mask for image in images}
    assert found == {"good": None, "dent": str(tmp_path / "cap" / "ground_truth" / "dent" / "0_mask.png")}
