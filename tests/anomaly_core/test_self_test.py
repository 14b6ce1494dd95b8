"""Reference images: what is kept of them, what is expected of them, and what counts as moved."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_core import self_test as module
from anomaly_core.bundle import NO_REFERENCES, load_bundle
from anomaly_core.bundle_manifest import BUNDLE_FILE, BundleError, BundleManifest, ReferenceImage
from anomaly_core.inspector import Inspector
from anomaly_core.preprocess import decode
from anomaly_core.self_test import deviation, moved, with_references
from tests.anomaly_core.files import colours, encode
from tests.bundles import reference_images

Files = Mapping[str, bytes]
IMAGES = {"cap": 2, "gear": 1}


@pytest.fixture(scope="module")
def images() -> dict[str, list[bytes]]:
    made = reference_images(list(IMAGES), 2, seed=4)
    return {category: made[category][:count] for category, count in IMAGES.items()}


@pytest.fixture(scope="module")
def tested(described_files: Files, images: dict[str, list[bytes]]) -> dict[str, bytes]:
    return with_references(described_files, images, "cpu")


def test_files_are_kept_as_they_are_and_listed(
    described_files: Files, tested: Files, images: dict[str, list[bytes]]
) -> None:
    added = {name: data for name, data in tested.items() if name not in described_files}
    assert added == {
        "references/cap/0": images["cap"][0],
        "references/cap/1": images["cap"][1],
        "references/gear/0": images["gear"][0],
    }
    bundle = load_bundle(tested)
    assert [one.file for one in bundle.references] == list(added)
    assert [one.tolerance for one in bundle.references] == [1e-3] * 3
    assert bundle.warnings == ()
    assert load_bundle(described_files).warnings == (NO_REFERENCES,)
    assert bundle.digest != load_bundle(described_files).digest
    kept = bundle.without_autoencoders()
    assert {name: kept.files[name] for name in added} == added and "cae_cap.pth" not in kept.files


def test_expectations_are_what_the_bundle_makes_of_the_images(tested: Files, images: dict[str, list[bytes]]) -> None:
    bundle = load_bundle(tested)
    inspector = Inspector(bundle, "cpu", "float32")
    extractor = bundle.extractor("cpu", "float32")
    for one in bundle.references:
        data = images[one.category][one.number]
        seen = inspector.inspect(data)
        assert one.confidence == pytest.approx(seen.confidence, rel=1e-6)
        assert one.routed == (seen.category == one.category)
        routed = extractor(decode(data).pixels[None])
        own = bundle.scorer(one.category, "cpu", "float32")(routed.layer2, routed.layer3)
        assert one.score == pytest.approx(float(own.score[0]), rel=1e-6)
    # The other autoencoder gives another score, or this would not tell which one was asked.
    assert {one.routed for one in bundle.references} == {True, False}


def test_of_a_large_file_the_picture_is_kept(
    described_files: Files, images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = encode(colours(900, 700), "PNG")
    monkeypatch.setattr(module, "LARGEST_FILE", len(large) - 1)
    small = with_references(described_files, {**images, "gear": [large]}, "cpu")["references/gear/0"]
    assert Image.open(io.BytesIO(small)).size == (224, 224)
    assert np.array_equal(decode(small).pixels, decode(large).pixels)
    monkeypatch.setattr(module, "LARGEST_FILE", len(large))
    assert with_references(described_files, {**images, "gear": [large]}, "cpu")["references/gear/0"] == large


def test_a_bundle_of_before_keeps_its_digest(described_files: Files) -> None:
    assert b'"references"' not in described_files[BUNDLE_FILE]
    manifest = BundleManifest.from_bytes(described_files[BUNDLE_FILE])
    assert manifest.references == [] and manifest.to_bytes() == described_files[BUNDLE_FILE]


@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_damaged_reference_image_is_refused_like_any_file(tested: Files, change: str) -> None:
    files = dict(tested)
    if change == "missing":
        del files["references/cap/1"]
    else:
        files["references/cap/1"] = files["references/cap/0"]
    with pytest.raises(BundleError, match=r"^references/cap/1 is "):
        load_bundle(files)


def test_every_category_must_have_a_reference_image(tested: Files) -> None:
    manifest = BundleManifest.from_bytes(tested[BUNDLE_FILE])
    other = manifest.model_copy(update={"references": manifest.references[:2]})
    with pytest.raises(BundleError, match="reference images and categories do not name the same"):
        load_bundle({**tested, BUNDLE_FILE: other.to_bytes()})


def expected(**changes: Any) -> ReferenceImage:
    content = {"category": "cap", "number": 0, "routed": True, "confidence": 0.8, "score": 2.0, "tolerance": 0.01}
    return ReferenceImage.model_validate(content | changes)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, None),
        ({"score": 2.0199}, None),
        ({"score": 1.9801}, None),
        ({"score": 2.0201}, "score 2 expected, 2.0201 found, 1 % away where 1 % are tolerated"),
        ({"score": 1.9799}, "1.9799 found"),
        ({"score": float("nan")}, "nan found"),
        ({"confidence": 0.8099}, None),
        ({"confidence": 0.7901}, None),
        ({"confidence": 0.8101}, "routing confidence 0.8000 expected, 0.8101 found"),
        ({"confidence": 0.7899}, "0.7899 found"),
        ({"routed": False}, "routed to its category at training, routed to another category now"),
    ],
)
def test_what_has_moved(found: dict[str, Any], said: str | None) -> None:
    told = moved(expected(), **({"routed": True, "confidence": 0.8, "score": 2.0} | found))
    assert told == said if said is None else told is not None and said in told


def test_where_two_categories_may_be_level_rounding_may_route() -> None:
    for confidence, tells in ((0.509, False), (0.511, True)):
        told = moved(expected(confidence=confidence), routed=False, confidence=confidence, score=2.0)
        assert (told is not None) == tells


def test_the_deviation_is_a_share_of_what_is_expected() -> None:
    assert [deviation(expected(), score) for score in (2.0, 2.5, 1.0)] == [0.0, 0.25, 0.5]
