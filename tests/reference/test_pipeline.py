"""Quick tests of the re-statement itself, on generated images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference import pipeline as ref

CAE_KEYS = [
    f"{half}.{index}.{name}"
    for half in ("encoder", "decoder")
    for index, names in (
        (0, ("weight", "bias")),
        (1, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        (3, ("weight", "bias")),
        (4, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        (6, ("weight", "bias")),
    )
    for name in names
]


@pytest.fixture(scope="module")
def backbone() -> ref.State:
    return ref.random_backbone(0)


def draw(path: Path, seed: int, tint: tuple[int, int, int]) -> Path:
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 60, (9, 7, 3)) + np.array(tint)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise.astype(np.uint8)).resize((70, 90), Image.Resampling.BICUBIC).save(path)
    return path


def test_preprocess_resizes_the_8_bit_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 250), dtype=np.uint8)
    image = Image.fromarray(pixels)
    small = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), dtype=np.float32)
    expected = (small / 255 - np.array(ref.MEAN)) / np.array(ref.STD)
    result = ref.preprocess(image)
    assert result.shape == (1, 3, 224, 224) and result.dtype == torch.float32
    np.testing.assert_allclose(result[0].permute(1, 2, 0).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_features_have_the_shape_and_a_sane_magnitude(backbone: ref.State) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    tensor = ref.preprocess(image)
    modern = ref.features(ref.resnet50("v1.5", backbone), tensor)
    caffe = ref.features(ref.resnet50("v1", backbone), tensor)
    assert modern.shape == caffe.shape == (1, 1536, 28, 28)
    for maps in (modern[:, :512], modern[:, 512:]):
        assert bool(maps.isfinite().all()) and 0.05 < float(maps.mean()) < 20
    assert not torch.allclose(modern, caffe, rtol=0.01, atol=0.01)


def test_the_pool_counts_its_zero_padding(backbone: ref.State) -> None:
    model = ref.resnet50("v1.5", backbone)
    caught: list[torch.Tensor] = []
    model.layer2.register_forward_hook(lambda _m, _i, output: caught.append(output))
    tensor = ref.preprocess(Image.new("L", (20, 20), 200))
    maps = ref.features(model, tensor)
    expected = caught[0][0, :, :2, :2].sum(dim=(1, 2)) / 9
    torch.testing.assert_close(maps[0, :512, 0, 0], expected)


def test_random_backbone_is_seeded_and_leaves_the_global_generator_alone(backbone: ref.State) -> None:
    before = torch.get_rng_state()
    again = ref.random_backbone(0)
    assert torch.equal(before, torch.get_rng_state())
    assert list(again) == list(backbone)
    # The statistics pass through threaded convolutions, so they are compared with a tolerance.
    for key, value in again.items():
        torch.testing.assert_close(value, backbone[key], rtol=1e-4, atol=1e-5)
    assert not any(key.startswith(("layer4.", "fc.")) for key in again)
    assert not torch.equal(again["conv1.weight"], ref.random_backbone(1)["conv1.weight"])


def test_weights_of_the_wrong_shape_or_incomplete_are_refused(backbone: ref.State) -> None:
    extra = backbone | {"fc.bias": torch.zeros(1000), "layer4.0.bn1.bias": torch.zeros(512)}
    ref.resnet50("v1.5", extra)
    with pytest.raises(RuntimeError, match=r"conv1\.weight"):
        ref.resnet50("v1.5", {key: value for key, value in backbone.items() if key != "conv1.weight"})


def test_cae_has_the_published_keys_and_size() -> None:
    model = ref.CAE()
    assert list(model.state_dict()) == CAE_KEYS
    state = model.state_dict()
    widths = [state[f"{half}.{i}.weight"].shape[0] for half in ("encoder", "decoder") for i in (0, 3, 6)]
    assert widths == [868, 200, 100, 200, 868, 1536]
    count = sum(parameter.numel() for parameter in model.parameters())
    weights = 2 * (1536 * 868 + 868 * 200 + 200 * 100)
    assert count == weights + sum(widths) + 2 * 2 * (868 + 200) and 3.05e6 < count < 3.065e6
    assert model(torch.zeros(2, 1536, 3, 3)).shape == (2, 1536, 3, 3)


def test_score_of_a_hand_computed_map() -> None:
    maps, rebuilt = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    maps[0, :, 0, 1] = torch.tensor([1.0, 3.0])
    rebuilt[0, 1, 1, 0] = 2.0
    errors = ref.error_map(maps, rebuilt)
    assert errors.tolist() == [[0.0, 5.0], [2.0, 0.0]]
    assert ref.score(torch.full((28, 28), 0.25)) == pytest.approx(0.25)
    # 8 times larger, align_corners=False: along each axis a peak at the edge weighs 1, 1, 1, 1, 15/16, 13/16.
    peak = torch.zeros(28, 28)
    peak[0, 0] = 16.0
    assert ref.score(peak) == pytest.approx(16.0)
    assert ref.score(peak, top=16) == pytest.approx(16.0)
    assert ref.score(peak, top=24) == pytest.approx((16 * 16 + 8 * 15) / 24)
    # Inside the map, the largest pixels sit 1/16 of a cell off the centre on both axes.
    peak = torch.zeros(28, 28)
    peak[10, 10] = 256.0
    assert ref.score(peak, top=4) == pytest.approx(225.0)
    assert ref.score(peak) == pytest.approx((4 * 15 * 15 + 6 * 15 * 13) / 10)


def test_thresholds_use_the_population_deviation_and_the_limit_is_anomalous() -> None:
    limits = ref.thresholds({"a": [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], "b": [0.5]})
    assert limits == pytest.approx({"a": 5.0 + 3 * 2.0, "b": 0.5})
    assert ref.decide(11.0, 11.0) == "anomalous" and ref.decide(10.999, 11.0) == "normal"


def test_training_lowers_the_error_and_repeats() -> None:
    maps = torch.rand(6, 300, 4, 4, generator=torch.Generator().manual_seed(0))
    first = ref.train_cae(maps, epochs=1, seed=1)
    later, again = (ref.train_cae(maps, epochs=20, seed=1) for _ in range(2))
    with torch.no_grad():
        errors = [float(((ref.load_cae(state)(maps) - maps) ** 2).mean()) for state in (first, later)]
    assert errors[1] < errors[0]
    for key, value in again.items():
        torch.testing.assert_close(value, later[key])


def test_folded_norms_of_a_router_stay_as_they_are(tmp_path: Path) -> None:
    images = {name: [draw(tmp_path / f"{name}.png", 0, (tint, 9, 9))] for name, tint in (("a", 0), ("b", 99))}
    start = {key: value for key, value in ref.router(5).state_dict().items() if "layer4.0.conv" not in key}
    folded = ref.train_router(images, init=start, epochs=1)
    assert torch.equal(folded["bn1.running_mean"], start["bn1.running_mean"])
    assert folded["fc.weight"].shape == (2, 512)
    start["bn1.running_mean"] = torch.full((64,), 0.5)
    usual = ref.train_router(images, init=start, epochs=1)
    assert not torch.equal(usual["bn1.running_mean"], start["bn1.running_mean"])
    with pytest.raises(RuntimeError, match=r"conv1\.weight"):
        ref.train_router(images, init={key: start[key] for key in start if key != "conv1.weight"}, epochs=1)


def test_bundle_round_trip(tmp_path: Path, backbone: ref.State) -> None:
    tints = {"pill": (190, 20, 20), "bottle": (10, 20, 190)}
    images = {name: [draw(tmp_path / name / f"{i}.png", i, tint) for i in range(3)] for name, tint in tints.items()}
    bundle = tmp_path / "bundle"
    limits = ref.make_bundle(bundle, images, backbone=backbone, form="v1", limit=2)
    files = ["best_classifier.pth", "cae_bottle.pth", "cae_pill.pth", "thresholds.json"]
    assert sorted(path.name for path in bundle.iterdir()) == files
    assert json.loads((bundle / "thresholds.json").read_text()) == limits
    assert list(limits) == ["bottle", "pill"]
    assert "model_state_dict" in torch.load(bundle / "best_classifier.pth", weights_only=True)
    state = torch.load(bundle / "cae_pill.pth", weights_only=True)
    assert list(state) == CAE_KEYS
    names = list(tints)  # not in alphabetical order: the order of the classes is
    row = ref.score_image(bundle, images["pill"][0], backbone=backbone, form="v1", categories=names)
    assert set(row) == {"category", "confidence", "score", "threshold", "decision", "error_map"}
    assert row["error_map"].shape == (28, 28) and 0.5 <= row["confidence"] <= 1.0
    assert row["threshold"] == limits[row["category"]]
    assert row["decision"] == ("anomalous" if row["score"] >= row["threshold"] else "normal")
    assert row["score"] == pytest.approx(ref.score(torch.from_numpy(row["error_map"])))
    # A plain state dict of the router is the other form that is in use.
    checkpoint = torch.load(bundle / "best_classifier.pth", weights_only=True)["model_state_dict"]
    torch.save(checkpoint, bundle / "best_classifier.pth")
    again = ref.score_image(bundle, images["pill"][0], backbone=backbone, form="v1", categories=names)
    assert again["category"] == row["category"] and again["score"] == pytest.approx(row["score"], rel=1e-5)


def test_scores_of_the_training_images_give_the_thresholds(tmp_path: Path, backbone: ref.State) -> None:
    paths = [draw(tmp_path / f"{i}.png", i, (90, 90, 90)) for i in range(2)]
    limits = ref.make_bundle(tmp_path / "b", {"only": paths}, backbone=backbone, form="v1.5")
    scores = [
        ref.score_image(tmp_path / "b", path, backbone=backbone, form="v1.5", categories=["only"])["score"]
        for path in paths
    ]
    assert limits["only"] == pytest.approx(np.mean(scores) + 3 * np.std(scores), rel=1e-5)
