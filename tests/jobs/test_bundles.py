"""Bundles from a folder or a bucket, whole, with files missing, and with files changed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomaly_core import device
from anomaly_core.bundle import Bundle
from anomaly_core.bundle_manifest import BUNDLE_FILE, BundleError, sha256
from jobs import weights as weights_module
from jobs.bundles import read_bundle, run_precision
from jobs.storage import upload
from jobs.storage_errors import StorageAccessError
from jobs.uris import join
from tests.bundles import write_random_bundle

CATEGORIES = ("cap", "gear")
FILES = ["backbone.pth", "best_classifier.pth", "cae_cap.pth", "cae_gear.pth", "thresholds.json"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("described") / "bundle", CATEGORIES, threshold=1.5)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its backbone lies beside it, in backbone.pth."""
    return write_random_bundle(tmp_path_factory.mktemp("reference") / "models", ("cap",), reference=True)


@pytest.fixture
def copy(described: Path, tmp_path: Path) -> Path:
    shutil.copytree(described, tmp_path / "copy", copy_function=os.link)
    return tmp_path / "copy"


def put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # it is a second name of a file that other tests use
    path.write_bytes(data)


def test_a_described_bundle(described: Path) -> None:
    bundle = read_bundle(str(described))
    assert bundle.categories == CATEGORIES
    assert bundle.thresholds == {"cap": 1.5, "gear": 1.5}
    assert bundle.digest == json.loads((described / BUNDLE_FILE).read_bytes())["digest"]
    assert (bundle.form, bundle.precision, bundle.reference) == ("v1.5", "float32", False)
    assert bundle.warnings == ("the bundle has no reference images: an audit starts without a self-test",)
    assert {name: data for name, data in bundle.files.items() if name != BUNDLE_FILE} == {
        name: (described / name).read_bytes() for name in FILES
    }
    assert read_bundle(f"file://{described}/").digest == bundle.digest


def test_other_files_beside_a_bundle_are_not_read(copy: Path, described: Path) -> None:
    put(copy / "README.md", b"notes")
    put(copy / "cae_other.pth", b"not weights")
    (copy / "old").mkdir()
    put(copy / "old" / "cae_cap.pth", b"old")
    bundle = read_bundle(str(copy))
    assert bundle.digest == read_bundle(str(described)).digest
    assert sorted(bundle.files) == sorted([*FILES, BUNDLE_FILE])


def test_the_reference_s_files_with_a_backbone(reference: Path) -> None:
    digests = set()
    for form in (None, "v1"):
        bundle = read_bundle(str(reference), str(reference.parent / "backbone.pth"), form)  # type: ignore[arg-type]
        digests.add(bundle.digest)
        assert (bundle.categories, bundle.thresholds) == (("cap",), {"cap": 1.0})
        assert (bundle.reference, bundle.precision, bundle.manifest) == (True, None, None)
        assert bundle.form == (form or "v1.5")
        assert not bundle.preprocessing.exif_orientation
        assert bundle.warnings != ()
    assert len(digests) == 2


def test_the_reference_s_files_without_a_backbone(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: Any) -> Any:
        raise weights_module.WeightsError("torchvision's weights cannot be downloaded")

    monkeypatch.setattr(weights_module, "_download", offline)
    with pytest.raises(BundleError, match=f"^{reference}: torchvision's weights cannot be downloaded"):
        read_bundle(str(reference))
    with pytest.raises(BundleError, match=r"form v1\.5, not v1"):
        read_bundle(str(reference), None, "v1")
    with pytest.raises(BundleError, match="neither a file nor a torchvision name"):
        read_bundle(str(reference), str(reference / "absent.pth"))


def test_a_bundle_that_brings_its_backbone_takes_no_other(described: Path, reference: Path) -> None:
    with pytest.raises(BundleError, match=f"^{described}: the bundle brings its own backbone"):
        read_bundle(str(described), str(reference.parent / "backbone.pth"))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"^{copy}: {name} is missing from the bundle"):
        read_bundle(str(copy))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0, -1])
def test_one_changed_byte_is_seen(copy: Path, name: str, where: int) -> None:
    data = bytearray((copy / name).read_bytes())
    data[where] ^= 1
    put(copy / name, bytes(data))
    with pytest.raises(BundleError, match=f"^{copy}: {name} is not the file that bundle.json lists"):
        read_bundle(str(copy))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'"random"', b'"other"', 1),
        lambda data: data[:-10],
        lambda data: data + b" ",
        lambda data: b"",
        lambda data: b"[]",
        lambda data: b"\xff\xfe",
        lambda data: json.dumps({"digest": sha256(b"{}"), "files": {}}).encode(),
    ],
)
def test_a_changed_description_is_seen(copy: Path, change: Any) -> None:
    put(copy / BUNDLE_FILE, change((copy / BUNDLE_FILE).read_bytes()))
    with pytest.raises(BundleError, match=f"^{copy}: bundle.json "):
        read_bundle(str(copy))


@pytest.mark.parametrize("name", ["best_classifier.pth", "thresholds.json"])
def test_a_missing_file_of_the_reference_is_named_before_weights_are_fetched(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("jobs.bundles.backbone_weights", lambda *_: pytest.fail("weights were fetched"))
    shutil.copytree(reference, tmp_path / "copy", copy_function=os.link)
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(BundleError, match=f"^{tmp_path}/copy: {name} is missing"):
        read_bundle(str(tmp_path / "copy"))


def test_a_missing_autoencoder_of_the_reference_is_named(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "copy", copy_function=os.link)
    (tmp_path / "copy" / "cae_cap.pth").unlink()
    with pytest.raises(BundleError, match=r"cae_cap\.pth"):
        read_bundle(str(tmp_path / "copy"), str(reference.parent / "backbone.pth"))


def test_an_empty_router_of_the_reference_is_named(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "copy", copy_function=os.link)
    put(tmp_path / "copy" / "best_classifier.pth", b"")
    with pytest.raises(BundleError, match=r"best_classifier\.pth cannot be loaded"):
        read_bundle(str(tmp_path / "copy"), str(reference.parent / "backbone.pth"))


def test_no_bundle_at_all(tmp_path: Path, s3: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "bundle.json").write_bytes(b"{}")
    (tmp_path / "file").write_bytes(b"")
    for uri in (tmp_path / "absent", tmp_path / "file", "s3://bucket/absent"):
        with pytest.raises(BundleError, match=f"^{uri}: there is no bundle here$"):
            read_bundle(str(uri))
    with pytest.raises(BundleError, match=r"best_classifier\.pth is missing"):
        read_bundle(str(tmp_path))  # a folder, but of something else
    with pytest.raises(StorageAccessError):
        read_bundle("s3://no-such-bucket/bundle")


def test_a_bundle_on_s3_is_the_bundle_on_disk(s3: str, described: Path) -> None:
    for name in [*FILES, BUNDLE_FILE]:
        upload(described / name, join("s3://bucket/models/line 4", name))
    there, here = read_bundle("s3://bucket/models/line 4/"), read_bundle(str(described))
    assert (there.digest, there.files, there.categories) == (here.digest, here.files, here.categories)


@pytest.fixture(scope="module")
def bundle(described: Path) -> Bundle:
    return read_bundle(str(described))


SLOW = "this machine has no fast bfloat16: the run will be slow, its scores right"
UNKNOWN = "scoring in bfloat16, though what the thresholds were calibrated in is unknown"


@pytest.mark.parametrize(
    ("calibrated", "choice", "where", "fast", "expected"),
    [
        ("float32", "auto", "cpu", False, ("float32", [])),
        ("float32", "auto", "cpu", True, ("float32", [])),
        ("float32", "auto", "cuda", False, ("float32", [])),
        ("float32", "float32", "cuda", True, ("float32", [])),
        ("float32", "bfloat16", "cuda", True, None),
        ("bfloat16", "auto", "cuda", False, ("bfloat16", [])),
        ("bfloat16", "auto", "cpu", True, ("bfloat16", [])),
        ("bfloat16", "auto", "cpu", False, ("bfloat16", [SLOW])),
        ("bfloat16", "bfloat16", "cpu", False, ("bfloat16", [SLOW])),
        ("bfloat16", "bfloat16", "cuda", False, ("bfloat16", [])),
        ("bfloat16", "float32", "cpu", False, None),
        ("bfloat16", "float32", "cuda", True, None),
        (None, "auto", "cpu", True, ("float32", [])),
        (None, "auto", "cuda", True, ("float32", [])),
        (None, "float32", "cuda", True, ("float32", [])),
        (None, "bfloat16", "cpu", False, ("bfloat16", [UNKNOWN])),
    ],
)
def test_the_precision_of_a_run(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    calibrated: Any,
    choice: str,
    where: str,
    fast: bool,
    expected: tuple[str, list[str]] | None,
) -> None:
    monkeypatch.setattr(device, "_multiplies_bfloat16", lambda: fast)
    assert bundle.manifest is not None
    manifest = bundle.manifest.model_copy(update={"precision": calibrated}) if calibrated else None
    made = replace(bundle, manifest=manifest)
    if expected is None:
        with pytest.raises(
            BundleError, match=f"calibrated in {calibrated}, not {choice}: leave out --precision.*--precision {choice}$"
        ):
            run_precision(made, choice, where)
    else:
        assert run_precision(made, choice, where) == expected


def test_an_unknown_precision_is_refused(bundle: Bundle) -> None:
    for made in (bundle, replace(bundle, manifest=None)):
        with pytest.raises(ValueError, match="float16"):
            run_precision(made, "float16", "cpu")
