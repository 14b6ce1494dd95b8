"""Bundles: what is read back, what is refused and how it is named, and that no code in a bundle runs."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from anomaly_core import bundle_manifest as module
from anomaly_core.bundle import NO_REFERENCES, Bundle, category_scorer, load_bundle, load_pth, save_pth
from anomaly_core.bundle_manifest import (
    BACKBONE_FILE,
    BUNDLE_FILE,
    ROUTER_FILE,
    THRESHOLDS_FILE,
    BundleError,
    BundleManifest,
    CategoryInfo,
    bundle_files,
    cae_file,
    check_categories,
    sha256,
)
from anomaly_core.device import MICRO_BATCH
from anomaly_core.preprocess import MEAN, STD, Preprocessing
from tests.anomaly_core.references import ReferenceBundle
from tests.bundles import random_pixels

Files = Mapping[str, bytes]
EVERY_FILE = [BUNDLE_FILE, ROUTER_FILE, THRESHOLDS_FILE, BACKBONE_FILE, "cae_cap.pth", "cae_gear.pth"]


def described(files: Files, /, **changes: Any) -> dict[str, bytes]:
    """The bundle with another bundle.json, whose own digest is right."""
    manifest = BundleManifest.from_bytes(files[BUNDLE_FILE])
    return {**files, BUNDLE_FILE: manifest.model_copy(update=changes).to_bytes()}


def relisted(files: Files, name: str, data: bytes) -> dict[str, bytes]:
    """The bundle with another file, whose SHA-256 its bundle.json lists."""
    manifest = BundleManifest.from_bytes(files[BUNDLE_FILE])
    changes: dict[str, Any] = {"files": {**manifest.files, name: sha256(data)}}
    if name == BACKBONE_FILE:
        changes["backbone"] = manifest.backbone.model_copy(update={"sha256": sha256(data)})
    return described({**files, name: data}, **changes)


def other_byte(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 0x01
    return bytes(changed)


def refused(files: Files, match: str, **settings: Any) -> None:
    with pytest.raises(BundleError, match=match):
        load_bundle(files, **settings)


# --------------------------------------------------------------------------------------------------- described


def test_a_described_bundle(described_files: Files) -> None:
    bundle = load_bundle(described_files)
    manifest = bundle.manifest
    assert manifest is not None and not bundle.reference and bundle.warnings == (NO_REFERENCES,)
    assert bundle.categories == ("cap", "gear") and bundle.thresholds == {"cap": 2.5, "gear": 2.5}
    assert (bundle.form, bundle.score, bundle.precision) == ("v1.5", "top10_mean_224", "float32")
    assert bundle.preprocessing == Preprocessing()
    assert bundle.digest == json.loads(described_files[BUNDLE_FILE])["digest"]
    assert sorted(bundle_files(manifest)) == sorted(set(EVERY_FILE) - {BUNDLE_FILE})
    rule = bundle.decision_rule(0.7)
    assert (rule.reference, rule.min_confidence) == (False, 0.7)


def test_what_the_description_says_is_followed(described_files: Files) -> None:
    manifest = BundleManifest.from_bytes(described_files[BUNDLE_FILE])
    other = manifest.preprocessing.model_copy(update={"exif_orientation": False, "jpeg_reduced": True})
    files = described(described_files, score="top10_mean_28", precision="bfloat16", preprocessing=other)
    bundle = load_bundle(files)
    assert (bundle.score, bundle.precision) == ("top10_mean_28", "bfloat16")
    assert bundle.preprocessing == Preprocessing(exif_orientation=False, jpeg_reduced=True)
    assert bundle.scorer("cap", "cpu", "float32").score_name == "top10_mean_28"
    assert bundle.digest != load_bundle(described_files).digest


def test_the_description_round_trips(described_files: Files) -> None:
    raw = described_files[BUNDLE_FILE]
    manifest = BundleManifest.from_bytes(raw)
    assert manifest.to_bytes() == raw
    info = CategoryInfo(
        images=3, images_sha256="ab", losses=[0.1 + 0.2, 1e-300, 3.0], best_epoch=1, seconds=0.1, threshold=1 / 3,
        calibration_scores=[0.1, 0.2],
    )  # fmt: skip
    changed = manifest.model_copy(
        update={
            "training": {"cap": info, "gear": info},
            "recipe": {"name": "größe", "deep": {"list": [1, 2.5, None, True, "\u2028"]}},
            "created_by": 'quote " backslash \\ newline \n',
        }
    )
    assert BundleManifest.from_bytes(changed.to_bytes()) == changed
    content = json.loads(changed.to_bytes())
    assert content["digest"] and content["preprocessing"]["mean"] == list(MEAN)
    assert content["preprocessing"]["std"] == list(STD)
    changed.to_bytes().decode("ascii")


def test_calibration_scores_are_given_only_where_the_cae_has_not_seen_the_images(described_files: Files) -> None:
    assert load_bundle(described_files).calibration_scores("cap") == []
    held_out = load_bundle(described(described_files, calibrated_on="held_out_images"))
    assert held_out.calibration_scores("cap") == [2.5]


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("name", EVERY_FILE)
def test_one_changed_byte_is_refused_naming_the_file(described_files: Files, name: str, place: str) -> None:
    data = described_files[name]
    changed = other_byte(data, {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[place])
    refused({**described_files, name: changed}, f"^{name} ")


def test_every_changed_byte_of_the_description_is_refused(described_files: Files) -> None:
    raw = described_files[BUNDLE_FILE]
    for place in range(0, len(raw), 7):
        for changed in (other_byte(raw, place), raw[:place], raw[:place] + b" " + raw[place:]):
            with pytest.raises(BundleError, match=BUNDLE_FILE):
                BundleManifest.from_bytes(changed)


@pytest.mark.parametrize("name", [n for n in EVERY_FILE if n != BUNDLE_FILE])
def test_a_missing_file_is_named(described_files: Files, name: str) -> None:
    refused({k: v for k, v in described_files.items() if k != name}, f"^{name} is missing")


def test_a_file_that_the_description_does_not_list_is_refused(described_files: Files) -> None:
    listed = BundleManifest.from_bytes(described_files[BUNDLE_FILE]).files
    without = {k: v for k, v in listed.items() if k != "cae_gear.pth"}
    refused(described(described_files, files=without), r"no SHA-256 for cae_gear\.pth")


def test_a_stray_file_changes_nothing(described_files: Files) -> None:
    assert load_bundle({**described_files, "notes.txt": b"x"}).digest == load_bundle(described_files).digest


def test_its_own_backbone_cannot_be_replaced(described_files: Files) -> None:
    refused(described_files, "--backbone-weights", backbone={"x": torch.zeros(1)})


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"null", b"[]", b'"digest"', b"3", b"{}", b'{"digest": "x"}', b'{"digest": 3}', b"\xff\xfe",
        b'{"digest": "x", "recipe": NaN}', b'{"digest": "x", "recipe": Infinity}', b"[" * 100_000,
    ],
    ids=lambda raw: ascii(raw[:40]),
)  # fmt: skip
def test_a_description_that_is_none(raw: bytes) -> None:
    with pytest.raises(BundleError, match=BUNDLE_FILE):
        BundleManifest.from_bytes(raw)


def resealed(files: Files, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A bundle.json with other content and a right digest, as another version would write it."""
    content = json.loads(files[BUNDLE_FILE])
    del content["digest"]
    change(content)
    return module._canonical({**content, "digest": sha256(module._canonical(content))})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(schema_version=2), "schema_version.*newer version"),
        (lambda c: c.update(surprise=1), "surprise"),
        (lambda c: c.pop("precision"), "precision"),
        (lambda c: c.update(precision="float16"), "precision"),
        (lambda c: c.update(score="max"), "score"),
        (lambda c: c["backbone"].update(form="v2"), r"backbone\.form"),
        (lambda c: c["preprocessing"].update(size=256), r"preprocessing\.size"),
        (lambda c: c["preprocessing"].update(resize="nearest"), r"preprocessing\.resize"),
        (lambda c: c.update(categories=["cap", "../x"]), r"categories.*'\.\./x'"),
        (lambda c: c.update(categories=[]), "no categories"),
        (lambda c: c.update(categories=["cap", "cap"]), "named twice: cap"),
        (lambda c: c.update(categories="cap"), "categories"),
    ],
)
def test_a_description_of_another_kind_is_refused_naming_the_field(
    described_files: Files, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    with pytest.raises(BundleError, match=f"(?s)^{BUNDLE_FILE}: .*{match}"):
        BundleManifest.from_bytes(resealed(described_files, change))


def test_other_normalisation_than_the_one_that_is_done_is_refused(described_files: Files) -> None:
    """decode and normalise know one mean and one std: a bundle that needs others must not be scored with these."""
    raw = resealed(described_files, lambda c: c["preprocessing"].update(mean=[0.5, 0.5, 0.5]))
    refused({**described_files, BUNDLE_FILE: raw}, "mean")


def test_a_backbone_digest_that_contradicts_the_list_of_files_is_refused(described_files: Files) -> None:
    info = BundleManifest.from_bytes(described_files[BUNDLE_FILE]).backbone
    refused(described(described_files, backbone=info.model_copy(update={"sha256": "0" * 64})), "backbone")


def test_categories_without_training_figures_are_refused(described_files: Files) -> None:
    """They are needed for p-values: a KeyError in the middle of a run would be too late."""
    files = described(described_files, training={}, calibrated_on="held_out_images")
    refused(files, BUNDLE_FILE)


# --------------------------------------------------------------------------------------------------- thresholds

WRONG_THRESHOLDS = [
    b'{"cap": -1.0, "gear": 1.0}', b'{"cap": 0, "gear": 1.0}', b'{"cap": NaN, "gear": 1.0}',
    b'{"cap": Infinity, "gear": 1.0}', b'{"cap": 1e999, "gear": 1.0}', b'{"cap": "0.1", "gear": 1.0}',
    b'{"cap": true, "gear": 1.0}', b'{"cap": null, "gear": 1.0}', b'{"cap": [0.1], "gear": 1.0}',
    b'{"cap": 1' + b"0" * 400 + b', "gear": 1.0}', b"[0.1, 0.2]", b"{}", b"null", b"0.1", b"", b"{", b"\xff",
    b"[" * 100_000, b'{"cap": 1e-60, "gear": 1.0}', b'{"cap": 1e-40, "gear": 1.0}', b'{"cap": 1e39, "gear": 1.0}',
    b'{"cap": 0.5, "gear": 1.0, "cap": 0.6}', b'{"cap": 0.5, "gear": 1.0, "cap": 0.5}',
]  # fmt: skip


@pytest.mark.parametrize("data", WRONG_THRESHOLDS, ids=lambda data: ascii(data[:24]))
def test_wrong_thresholds_are_refused(described_files: Files, reference_bundle: ReferenceBundle, data: bytes) -> None:
    refused(relisted(described_files, THRESHOLDS_FILE, data), THRESHOLDS_FILE)
    reference = {**reference_bundle.files(), THRESHOLDS_FILE: data}
    refused(reference, THRESHOLDS_FILE, backbone=reference_bundle.backbone)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"cap": 1e-60, "gear": 1.0}', "the threshold of 'cap' must be .* that float32 can hold, not 1e-60"),
        (b'{"gear": 1.0, "cap": 0.5, "gear": 9.0}', "two thresholds for 'gear'"),
    ],
)
def test_thresholds_that_look_right_are_refused_by_name(described_files: Files, data: bytes, said: str) -> None:
    refused(relisted(described_files, THRESHOLDS_FILE, data), said)


def test_the_least_threshold_that_float32_holds(described_files: Files) -> None:
    bundle = load_bundle(relisted(described_files, THRESHOLDS_FILE, b'{"cap": 1.2e-38, "gear": 3.4e38}'))
    assert bundle.thresholds == {"cap": 1.2e-38, "gear": 3.4e38}


def test_an_integer_threshold_is_a_number(described_files: Files) -> None:
    bundle = load_bundle(relisted(described_files, THRESHOLDS_FILE, b'{"cap": 1, "gear": 2}'))
    assert bundle.thresholds == {"cap": 1.0, "gear": 2.0} and isinstance(bundle.thresholds["cap"], float)


def test_thresholds_of_other_categories_are_refused(described_files: Files) -> None:
    refused(relisted(described_files, THRESHOLDS_FILE, b'{"cap": 1.0, "tile": 1.0}'), "same categories")
    refused(relisted(described_files, THRESHOLDS_FILE, b'{"cap": 1.0}'), "same categories")


# ----------------------------------------------------------------------------------------------------- names

HOSTILE = [
    "../x",
    "a/b",
    "a\\b",
    "",
    ".",
    "..",
    ".hidden",
    "-rf",
    "_x",
    "a b",
    "a\n",
    "ä",
    "a" * 65,
    "con.",
    "a:b",
    "\0",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_category_names_are_refused(reference_bundle: ReferenceBundle, name: str) -> None:
    with pytest.raises(ValueError, match="category name"):
        check_categories(["cap", name])
    files = reference_bundle.files()
    files[THRESHOLDS_FILE] = json.dumps({"cap": 1.0, name: 1.0}).encode()
    files[cae_file(name)] = files["cae_gear.pth"]
    refused(files, f"^{THRESHOLDS_FILE}: category name", backbone=reference_bundle.backbone)


def test_usual_category_names_are_kept() -> None:
    names = ["bottle", "metal_nut", "Line-7", "a", "9", "a" * 64]
    assert check_categories(names) == names


def test_names_must_be_some_and_different() -> None:
    with pytest.raises(ValueError, match="no categories"):
        check_categories([])
    with pytest.raises(ValueError, match="named twice: b"):
        check_categories(["a", "b", "c", "b"])


# ------------------------------------------------------------------------------------------------------ router


def test_a_router_of_another_number_of_classes_is_refused(
    described_files: Files, reference_bundle: ReferenceBundle
) -> None:
    three = save_pth({"model_state_dict": {"fc.weight": torch.zeros(3, 512)}})
    match = f"^{ROUTER_FILE} tells 3 categories apart.* 2$"
    refused(relisted(described_files, ROUTER_FILE, three), match)
    files = {**reference_bundle.files(), ROUTER_FILE: three}
    refused(files, match, backbone=reference_bundle.backbone)


@pytest.mark.parametrize(
    "content",
    [
        {"fc.bias": torch.zeros(2)}, {"fc.weight": torch.tensor(2.0)}, {"model_state_dict": 5}, torch.zeros(2), [1, 2],
        {"model_state_dict": {"fc.weight": "text"}}, {},
    ],
)  # fmt: skip
def test_a_router_file_without_a_router_is_named(reference_bundle: ReferenceBundle, content: object) -> None:
    files = {**reference_bundle.files(), ROUTER_FILE: save_pth(content)}
    refused(files, f"^{ROUTER_FILE} ", backbone=reference_bundle.backbone)


def test_weights_that_do_not_fit_are_named_when_models_are_built(reference_bundle: ReferenceBundle) -> None:
    heads: dict[Any, torch.Tensor] = {"fc.weight": torch.zeros(2, 512), "fc.bias": torch.zeros(2)}
    odd_keys: dict[Any, torch.Tensor] = {**heads, 7: torch.zeros(1)}
    for router in (heads, odd_keys):
        files = {**reference_bundle.files(), ROUTER_FILE: save_pth(router)}
        with pytest.raises(BundleError, match=f"^{ROUTER_FILE} does not fit"):
            load_bundle(files, backbone=reference_bundle.backbone).extractor("cpu", "float32")
    with pytest.raises(BundleError, match=f"^{BACKBONE_FILE} does not fit.*missing"):
        load_bundle(reference_bundle.files(), backbone={"conv1.weight": torch.zeros(1)}).extractor("cpu", "float32")
    with pytest.raises(BundleError, match=r"^cae_gear\.pth does not fit"):
        category_scorer({"cae_gear.pth": save_pth(heads)}, "gear", "top10_mean_224", "cpu", "float32")
    with pytest.raises(BundleError, match=r"^cae_gear\.pth cannot be loaded"):
        category_scorer({"cae_gear.pth": b"rubbish"}, "gear", "top10_mean_224", "cpu", "float32")


# ----------------------------------------------------------------------------------------------------- pickles


class _Payload:
    """A pickle that, where it is trusted, runs a command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "torch-legacy", "pickle"])
@pytest.mark.parametrize("name", [ROUTER_FILE, "cae_cap.pth", BACKBONE_FILE])
def test_code_in_a_file_is_refused_and_not_run(described_files: Files, tmp_path: Path, name: str, form: str) -> None:
    written = tmp_path / "written"
    payload = {"fc.weight": _Payload(f"touch {written}")}
    if form == "pickle":
        data = pickle.dumps(payload)
    else:
        torch.save(payload, tmp_path / "x", _use_new_zipfile_serialization=form == "torch")
        data = (tmp_path / "x").read_bytes()

    def use() -> None:
        bundle = load_bundle(relisted(described_files, name, data))
        bundle.extractor("cpu", "float32")
        bundle.scorer("cap", "cpu", "float32")

    with pytest.raises(BundleError, match=f"^{name} "):
        use()
    assert not written.exists()
    pickle.loads(pickle.dumps(payload))  # the trap itself works
    assert written.exists()


def test_pth_round_trip_and_errors() -> None:
    state = {"model_state_dict": {"a": torch.arange(3.0)}, "epoch": 4}
    back = load_pth({"x.pth": save_pth(state)}, "x.pth")
    assert (
        isinstance(back, dict) and back["epoch"] == 4 and torch.equal(back["model_state_dict"]["a"], torch.arange(3.0))
    )
    with pytest.raises(BundleError, match=r"^y\.pth is missing"):
        load_pth({}, "y.pth")
    for data in (b"", b"\x80", b"PK\x03\x04", save_pth(state)[:-40], b"<html>"):
        with pytest.raises(BundleError, match=r"^x\.pth cannot be loaded"):
            load_pth({"x.pth": data}, "x.pth")


# --------------------------------------------------------------------------------------------------- reference


def test_a_reference_folder_is_accepted_with_warnings(reference_bundle: ReferenceBundle) -> None:
    bundle = reference_bundle.load()
    assert bundle.reference and bundle.manifest is None and bundle.precision is None
    assert bundle.categories == ("cap", "gear") and bundle.score == "top10_mean_224"
    assert bundle.preprocessing == Preprocessing(exif_orientation=False) and bundle.calibration_scores("cap") == []
    assert bundle.decision_rule(0.9).reference
    assert any(BUNDLE_FILE in text for text in bundle.warnings)
    assert any("backbone" in text for text in bundle.warnings)
    assert any("precision" in text for text in bundle.warnings)
    assert bundle.thresholds == json.loads(reference_bundle.files()[THRESHOLDS_FILE])


def test_the_class_order_is_alphabetical(reference_bundle: ReferenceBundle) -> None:
    files = {**reference_bundle.files(), THRESHOLDS_FILE: b'{"gear": 1.0, "cap": 2.0}'}
    bundle = load_bundle(files, backbone=reference_bundle.backbone)
    assert bundle.categories == ("cap", "gear") and bundle.thresholds["cap"] == 2.0


@pytest.mark.parametrize("name", [ROUTER_FILE, THRESHOLDS_FILE, "cae_cap.pth", "cae_gear.pth"])
def test_a_file_missing_from_a_reference_folder_is_named(reference_bundle: ReferenceBundle, name: str) -> None:
    files = {k: v for k, v in reference_bundle.files().items() if k != name}
    refused(files, f"^{name} is missing", backbone=reference_bundle.backbone)


def test_a_reference_folder_needs_a_backbone(reference_bundle: ReferenceBundle) -> None:
    refused(reference_bundle.files(), "--backbone-weights")


def test_the_digest_of_a_reference_folder_depends_on_all_that_counts(reference_bundle: ReferenceBundle) -> None:
    files, backbone = reference_bundle.files(), dict(reference_bundle.backbone)

    def digest(files: Files, weights: Mapping[str, torch.Tensor], form: Any = "v1.5") -> str:
        return load_bundle(files, backbone=weights, form=form).digest

    first = digest(files, backbone)
    assert len(first) == 64 and int(first, 16)
    assert digest(dict(reversed(files.items())), dict(reversed(backbone.items()))) == first
    assert digest({**files, "notes.txt": b"x", "cae_other.pth": b"x"}, backbone) == first
    assert load_bundle(files, backbone=backbone).digest == first, "v1.5 is the default form"
    others = [digest(files, backbone, "v1")]
    router = torch.load(reference_bundle.folder / ROUTER_FILE, weights_only=True)
    others.append(digest({**files, ROUTER_FILE: save_pth({**router, "epoch": 99})}, backbone))
    others.append(digest({**files, "cae_cap.pth": files["cae_gear.pth"]}, backbone))
    swapped = {**files, "cae_cap.pth": files["cae_gear.pth"], "cae_gear.pth": files["cae_cap.pth"]}
    others.append(digest(swapped, backbone))
    others.append(digest({**files, THRESHOLDS_FILE: files[THRESHOLDS_FILE] + b"\n"}, backbone))
    moved = backbone["layer3.5.conv3.weight"].clone()
    moved[-1, -1] += 1e-6
    others.append(digest(files, {**backbone, "layer3.5.conv3.weight": moved}))
    exchanged = {**backbone, "bn1.bias": backbone["bn1.weight"], "bn1.weight": backbone["bn1.bias"]}
    others.append(digest(files, exchanged))
    assert len({first, *others}) == 1 + len(others)


def test_the_digest_of_a_reference_folder_is_that_of_the_layers_in_use(reference_bundle: ReferenceBundle) -> None:
    """The same backbone is the same bundle, whether its file also holds layer4 and fc or not."""
    files, backbone = reference_bundle.files(), dict(reference_bundle.backbone)
    whole = {**backbone, "fc.bias": torch.zeros(1000), "layer4.0.bn1.bias": torch.zeros(512)}
    assert load_bundle(files, backbone=whole).digest == load_bundle(files, backbone=backbone).digest


def test_backbone_weights_in_bfloat16_are_accepted(reference_bundle: ReferenceBundle) -> None:
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in reference_bundle.backbone.items()}
    assert len(load_bundle(reference_bundle.files(), backbone=half).digest) == 64


# ------------------------------------------------------------------------------------------------------ models


def test_without_autoencoders_only_what_extracts_is_left(described_files: Files) -> None:
    bundle = load_bundle(described_files)
    small = bundle.without_autoencoders()
    assert sorted(small.files) == [BACKBONE_FILE, ROUTER_FILE]
    assert (small.digest, small.thresholds, small.categories) == (bundle.digest, bundle.thresholds, bundle.categories)
    small.extractor("cpu", "float32")
    with pytest.raises((BundleError, KeyError), match=r"cae_cap\.pth"):
        small.scorer("cap", "cpu", "float32")


def test_models_are_built_in_the_precision_asked_for(described_files: Files) -> None:
    bundle: Bundle = load_bundle(described_files)
    extractor = bundle.extractor("cpu", "bfloat16", micro_batch=3)
    scorer = bundle.scorer("gear", "cpu", "bfloat16")
    assert extractor.dtype == scorer.dtype == torch.bfloat16
    assert extractor.micro_batch == 3 and bundle.extractor("cpu", "float32").micro_batch == MICRO_BATCH["cpu"]
    assert {weight.dtype for pair in scorer.cae.layers for weight in pair} == {torch.bfloat16}
    routed = extractor(random_pixels(1))
    assert routed.layer2.dtype == routed.layer3.dtype == torch.bfloat16
