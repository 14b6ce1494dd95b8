"""Pictures of a product that the bundle does not know: in an audit, in the inspector and in an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_core.bundle_manifest import KNOWN_FILE, BundleError
from anomaly_core.inspector import Inspector
from jobs.audit.config import AuditConfig
from jobs.audit.run import audit
from jobs.bundles import read_bundle
from jobs.evaluation.command import Settings, run_evaluation
from tests.bundles import random_pixels, write_random_bundle
from tests.jobs.audit.tables import published

FAMILIAR, STRANGE = 5, 3


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(
        write_random_bundle(tmp_path_factory.mktemp("known") / "bundle", threshold=0.7, known=True, references=1)
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures such as the bundle knows, then stripes, in the layout of test images too."""
    root = tmp_path_factory.mktemp("unknown")
    for number, pixels in enumerate(random_pixels(FAMILIAR, seed=8)):
        save(pixels, root / "cap" / "test" / "good" / f"{number}.png")
    for number in range(STRANGE):
        wave = np.sin(np.arange(224) / (3 + number)) * 120 + 128
        stripes = np.repeat(np.tile(wave.astype(np.uint8), (224, 1))[..., None], 3, axis=2)
        save(stripes, root / "wheel" / "test" / "good" / f"{number}.png")
    lines = [f"{path},{'cap' if 'cap/' in str(path) else ''}" for path in sorted(root.rglob("*.png"))]
    (root / "manifest.csv").write_text("\n".join(["uri,declared_category", *lines]) + "\n")
    return root


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.usefixtures("ray_cluster")
def test_an_audit_sends_them_to_review_without_a_score(knowing: str, images: Path, tmp_path: Path) -> None:
    config = AuditConfig(
        manifest=str(images / "manifest.csv"),
        bundle=knowing,
        output=str(tmp_path),
        run_date="2026-01-02",
        heatmaps="all",
    )
    outcome = audit(config)
    assert outcome.code == 0
    rows = published(tmp_path).to_pylist()
    assert len(rows) == FAMILIAR + STRANGE
    inspector = Inspector(read_bundle(knowing), "cpu", "float32")
    for row in rows:
        seen = inspector.inspect(Path(row["uri"]).read_bytes())
        assert row["status"] == "scored"
        assert row["category_distance"] == pytest.approx(seen.distance, rel=1e-4)
        if "/wheel/" in row["uri"]:
            assert row["category_distance"] > 1
            assert (row["decision"], row["decision_reason"]) == ("review", "unknown_category")
            assert (seen.decision, seen.reason) == ("review", "unknown_category")
            assert (row["category"], row["score"], row["threshold"], row["heatmap_path"]) == (None,) * 4
            assert row["category_confidence"] == pytest.approx(seen.confidence, rel=1e-4)
        else:
            assert row["category_distance"] < 1
            assert row["score"] is not None and row["decision_reason"] != "unknown_category"
    assert outcome.record.counts["review_by_category"][""] == STRANGE
    assert outcome.record.counts["scored_by_category"].get("None") is None


@pytest.mark.usefixtures("ray_cluster")
def test_a_trusted_declaration_is_measured_by_its_own_category(knowing: str, images: Path, tmp_path: Path) -> None:
    (images / "wrong.csv").write_text(f"uri,declared_category\n{images}/wheel/test/good/0.png,tile\n")
    config = AuditConfig(
        manifest=str(images / "wrong.csv"),
        bundle=knowing,
        output=str(tmp_path),
        run_date="2026-01-02",
        trust_declared=True,
    )
    audit(config)
    (row,) = published(tmp_path).to_pylist()
    assert (row["decision"], row["decision_reason"]) == ("review", "unknown_category")
    own = Inspector(read_bundle(knowing), "cpu", "float32").inspect(Path(row["uri"]).read_bytes(), category="tile")
    assert row["category_distance"] == pytest.approx(own.distance, rel=1e-4)


def test_an_evaluation_tells_how_many(knowing: str, images: Path, tmp_path: Path) -> None:
    found, _ = run_evaluation(Settings(knowing, str(images), str(tmp_path / "out")))
    unknown = found.unknown["wheel"]
    assert (unknown.images, unknown.called_unknown.count, unknown.passed.count) == (STRANGE, STRANGE, 0)
    assert (found.categories["cap"].routing.good_unknown.count, found.categories["cap"].images) == (0, FAMILIAR)


def test_a_damaged_file_is_named(knowing: str) -> None:
    read = read_bundle(knowing)
    files = {**read.files, KNOWN_FILE: read.files["thresholds.json"]}
    with pytest.raises(BundleError, match=r"known\.pth"):
        type(read)(files, read.categories, read.thresholds, read.digest, read.form, read.manifest).known()
