"""Error maps, scores and peaks by hand; micro-batches; and the whole method against the re-statement."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_core.cae import load_cae
from anomaly_core.features import load_backbone
from anomaly_core.heatmap import heatmap, overlay, relative_map
from anomaly_core.inspector import Inspector
from anomaly_core.preprocess import ImageError, decode
from anomaly_core.router import build_router, load_router
from anomaly_core.scoring import CategoryScorer, RoutingExtractor, Scored, error_maps, score_maps, upsample
from tests.anomaly_core.files import colours, encode, exif
from tests.anomaly_core.references import Backbones, ReferenceBundle, State, assert_same_results
from tests.bundles import random_pixels
from tests.reference import pipeline

Layers = tuple[torch.Tensor, torch.Tensor]


def peak_at(row: int, column: int, value: float) -> torch.Tensor:
    maps = torch.zeros(1, 28, 28)
    maps[0, row, column] = value
    return maps


# --------------------------------------------------------------------------------------------------- by hand


def test_error_map_is_the_mean_of_squares_over_channels() -> None:
    features, rebuilt = torch.zeros(1, 2, 28, 28), torch.zeros(1, 2, 28, 28)
    features[0, :, 0, 1] = torch.tensor([1.0, 3.0])
    rebuilt[0, 1, 2, 0] = -2.0
    result = error_maps(features, rebuilt)
    assert result.shape == (1, 28, 28) and result.dtype == torch.float32
    assert (float(result[0, 0, 1]), float(result[0, 2, 0]), float(result.sum())) == (5.0, 2.0, 7.0)


def test_error_map_is_float32_whatever_comes() -> None:
    features = torch.full((1, 4, 28, 28), 300.0, dtype=torch.bfloat16)
    result = error_maps(features, torch.full_like(features, 299.0))
    assert result.dtype == torch.float32
    assert float(result[0, 0, 0]) == float((features[0, 0, 0, 0].float() - torch.tensor(299.0).bfloat16().float()) ** 2)


def test_scores_of_one_peak() -> None:
    """8 times larger, not aligned: the highest pixels lie 1/16 and 3/16 of a cell off the centre on each axis."""
    score, maps, _ = score_maps(peak_at(10, 10, 256.0), "top10_mean_224")
    assert score.dtype == np.float32 and score.shape == (1,) and maps.shape == (1, 28, 28)
    assert score[0] == pytest.approx((4 * 15 * 15 + 6 * 15 * 13) / 10)
    small, _, _ = score_maps(peak_at(10, 10, 256.0), "top10_mean_28")
    assert small[0] == pytest.approx(25.6)
    corner, _, _ = score_maps(peak_at(0, 0, 16.0), "top10_mean_224")
    assert corner[0] == pytest.approx(16.0)


@pytest.mark.parametrize("name", ["top10_mean_224", "top10_mean_28"])
def test_a_flat_map_scores_its_value(name: str) -> None:
    score, _, _ = score_maps(torch.full((3, 28, 28), 0.25), name)  # type: ignore[arg-type]
    np.testing.assert_allclose(score, 0.25, rtol=1e-6)


def test_top_ten_of_the_small_map_are_the_ten_highest() -> None:
    maps = torch.randperm(784, generator=torch.Generator().manual_seed(0)).float().reshape(1, 28, 28)
    score, _, _ = score_maps(maps, "top10_mean_28")
    assert score[0] == np.mean(np.arange(774, 784))


def test_scores_equal_the_restatement_and_rows_do_not_mix() -> None:
    maps = torch.rand(5, 28, 28, generator=torch.Generator().manual_seed(1)) ** 4
    score, kept, peak = score_maps(maps, "top10_mean_224")
    np.testing.assert_allclose(score, [pipeline.score(one) for one in maps], rtol=1e-6)
    np.testing.assert_array_equal(kept, maps.numpy())
    for row, one in enumerate(maps):
        alone, _, place = score_maps(one[None], "top10_mean_224")
        assert alone[0] == score[row] and (place[0] == peak[row]).all()


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown score definition 'max'"):
        score_maps(torch.zeros(1, 28, 28), "max")  # type: ignore[arg-type]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (27, 27), (0, 27), (5, 20), (13, 14)])
def test_the_peak_is_x_then_y_at_the_centre_of_the_highest_pixel(row: int, column: int) -> None:
    _, _, peak = score_maps(peak_at(row, column, 1.0), "top10_mean_224")
    x, y = peak[0] * 224
    assert peak.dtype == np.float32 and peak.shape == (1, 2)
    assert column * 8 < x < column * 8 + 8 and row * 8 < y < row * 8 + 8
    assert x % 1 == y % 1 == 0.5
    large = upsample(peak_at(row, column, 1.0))[0]
    assert large[int(y), int(x)] == large.max()


def test_upsample_equals_the_reference_resize() -> None:
    maps = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(2))
    want = torch.nn.functional.interpolate(maps[:, None], (224, 224), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(upsample(maps), want)
    assert torch.allclose(upsample(maps)[:, ::223, ::223], maps[:, ::27, ::27])


# ----------------------------------------------------------------------------------------------- micro-batches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_do_not_depend_on_what_comes_with_an_image(
    layers: Layers, cae_weights: State, dtype: torch.dtype
) -> None:
    model = load_cae(cae_weights, dtype=dtype)
    scorer = CategoryScorer(model, "top10_mean_224", "cpu", dtype)
    few = [layer[:3].to(dtype) for layer in layers]  # a CPU that only imitates bfloat16 takes a second for each
    parts = [
        [scorer(two, three) for two, three in zip(*(layer.split(size) for layer in few), strict=True)]
        for size in (3, 1, 2)
    ]
    results = [
        Scored(*(np.concatenate([getattr(one, name) for one in part]) for name in ("score", "error_map", "peak")))
        for part in parts
    ]
    assert results[0].score.shape == (3,) and len(set(results[0].score.tolist())) == 3
    for other in results[1:]:
        np.testing.assert_array_equal(other.score, results[0].score)
        np.testing.assert_array_equal(other.error_map, results[0].error_map)
        np.testing.assert_array_equal(other.peak, results[0].peak)


def test_the_scorer_equals_the_restatement(layers: Layers, cae_weights: State) -> None:
    result = CategoryScorer(load_cae(cae_weights), "top10_mean_224", "cpu", torch.float32)(*layers)
    theirs = pipeline.load_cae(cae_weights)
    for row in (0, 4):
        low, high = (torch.nn.AvgPool2d(3, 1, 1)(layer[row : row + 1]) for layer in layers)
        high = torch.nn.functional.interpolate(high, (28, 28), mode="bilinear", align_corners=False)
        maps = torch.cat([low, high], dim=1)
        with torch.no_grad():
            errors = pipeline.error_map(maps, theirs(maps))
        np.testing.assert_allclose(result.score[row], pipeline.score(errors), rtol=1e-5)
        np.testing.assert_allclose(result.error_map[row], errors.numpy(), rtol=1e-4, atol=1e-5 * float(errors.max()))


def test_the_scorer_uses_the_score_that_it_is_given(layers: Layers, cae_weights: State) -> None:
    model = load_cae(cae_weights)
    large, small = (
        CategoryScorer(model, name, "cpu", torch.float32)(layers[0][:2], layers[1][:2])
        for name in ("top10_mean_224", "top10_mean_28")
    )
    assert (large.score != small.score).all()
    np.testing.assert_allclose(small.score, np.sort(small.error_map.reshape(2, -1))[:, -10:].mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_and_routes_do_not_depend_on_the_micro_batch(backbone_weights: State, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    router = load_router(build_router(3).state_dict(), dtype=dtype)
    backbone = load_backbone(backbone_weights, "v1.5", dtype=dtype)
    pixels = random_pixels(3, seed=2)
    whole = RoutingExtractor(router, backbone, "cpu", dtype)(pixels)
    assert whole.layer2.dtype == dtype and whole.category.dtype == np.int64 and whole.confidence.dtype == np.float32
    for size in (1, 2):
        extractor = RoutingExtractor(router, backbone, "cpu", dtype, micro_batch=size)
        covered = []
        for rows, part in extractor.micro_batches(pixels):
            covered += list(range(3))[rows]
            assert torch.equal(part.layer2, whole.layer2[rows]) and torch.equal(part.layer3, whole.layer3[rows])
            np.testing.assert_array_equal(part.category, whole.category[rows])
            np.testing.assert_allclose(part.confidence, whole.confidence[rows], rtol=1e-6)
        assert covered == list(range(3))


def test_no_pictures_give_no_micro_batches(backbones: Backbones) -> None:
    extractor = RoutingExtractor(load_router(build_router(2).state_dict()), backbones["v1.5"], "cpu", torch.float32)
    assert list(extractor.micro_batches(random_pixels(1)[:0])) == []


# ------------------------------------------------------------------------------------------------ whole method


def test_the_whole_method_equals_the_restatement(reference_bundle: ReferenceBundle, inspector: Inspector) -> None:
    assert_same_results(reference_bundle, inspector)


@pytest.mark.shared
def test_the_whole_method_equals_the_restatement_on_real_images(shared_root: Path, tmp_path: Path) -> None:
    data, weights = shared_root / "data" / "mvtec224", shared_root / "weights"
    backbone = torch.load(weights / "resnet50_v1_caffe_imagenet_conv1_to_layer3.pth", weights_only=True)
    router = torch.load(weights / "resnet18_imagenet_bn_folded_without_layer4_convs.pth", weights_only=True)
    names = ("bottle", "screw")
    training = {name: sorted((data / name / "train" / "good").iterdir())[:4] for name in names}
    kinds = {"bottle": "broken_large", "screw": "scratch_head"}
    tests = [
        data / name / "test" / kind / f"{i:03d}.png" for name in names for kind, i in ((kinds[name], 0), ("good", 0))
    ]
    tests += [data / name / "test" / kinds[name] / "001.png" for name in names] + [training["bottle"][0]]
    pipeline.make_bundle(tmp_path / "bundle", training, backbone=backbone, form="v1", router_init=router)
    made = ReferenceBundle(tmp_path / "bundle", backbone, "v1", names, tuple(tests))
    assert_same_results(made, Inspector(made.load(), "cpu", "float32"))


def test_an_inspection_is_made_of_the_parts_that_the_job_runs(inspector: Inspector) -> None:
    bundle = inspector.bundle
    data = encode(colours(90, 210, seed=9), "PNG")
    seen = inspector.inspect(data)
    pixels = decode(data).pixels
    routed = bundle.extractor("cpu", "float32")(pixels[None])
    category = bundle.categories[int(routed.category[0])]
    scored = bundle.scorer(category, "cpu", "float32")(routed.layer2, routed.layer3)
    assert (seen.category, seen.score) == (category, float(scored.score[0]))
    assert (seen.width, seen.height) == (210, 90)
    assert seen.peak == pytest.approx((scored.peak[0, 0] * 210, scored.peak[0, 1] * 90))
    assert seen.margin == pytest.approx(seen.score / bundle.thresholds[category])
    relative = relative_map(scored.error_map[0], bundle.thresholds[category], (224, 224))
    np.testing.assert_array_equal(seen.picture, pixels)
    np.testing.assert_array_equal(seen.heatmap, heatmap(relative))
    np.testing.assert_array_equal(seen.overlay, overlay(relative, pixels))


def test_a_reference_bundle_does_not_turn_images(inspector: Inspector) -> None:
    picture = colours(90, 210, seed=9)
    plain, turned = inspector.inspect(encode(picture, "PNG")), inspector.inspect(encode(picture, "PNG", exif=exif(6)))
    assert (plain.score, plain.width, plain.height) == (turned.score, turned.width, turned.height)


def test_an_inspector_refuses_what_is_no_image(inspector: Inspector) -> None:
    with pytest.raises(ImageError) as caught:
        inspector.inspect(b"<html>")
    assert caught.value.code == "html_document"


def test_an_inspector_serves_many_threads(reference_bundle: ReferenceBundle, inspector: Inspector) -> None:
    data = [path.read_bytes() for path in reference_bundle.images]
    alone = [inspector.inspect(one).score for one in data]
    found: dict[int, float] = {}

    def work(index: int) -> None:
        found[index] = inspector.inspect(data[index % len(data)]).score

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(4)] == (alone * 2)[:4]
