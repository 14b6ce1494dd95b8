"""Training on tiny tensors: it learns, repeats, keeps the best epoch, and counts every image once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomaly_core.cae import load_cae
from anomaly_core.cae_training import fit_cae
from anomaly_core.preprocess import normalise
from anomaly_core.router import build_router, load_router, route
from anomaly_core.training import RECIPES, Fitted, Recipe, extract_layers, fit_router
from tests.anomaly_core.references import Backbones
from tests.bundles import random_pixels

RECIPE = Recipe("test", cae_epochs=6, cae_batch=4, router_epochs=12, router_rate=1e-3, router_batch=4)


def small_layers(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features on a grid of 4 x 4: nothing in training asks for 28 x 28."""
    generator = torch.Generator().manual_seed(seed)
    basis2, basis3 = torch.rand(6, 512, generator=generator), torch.rand(6, 1024, generator=generator)
    weights2 = torch.rand(count, 4, 4, 6, generator=generator)
    weights3 = torch.rand(count, 2, 2, 6, generator=generator)
    return (weights2 @ basis2).permute(0, 3, 1, 2).contiguous(), (weights3 @ basis3).permute(0, 3, 1, 2).contiguous()


def cae(layers: tuple[torch.Tensor, torch.Tensor], recipe: Recipe, seed: int = 0, **settings: object) -> Fitted:
    return fit_cae(*layers, recipe, device="cpu", precision="float32", seed=seed, **settings)  # type: ignore[arg-type]


def same(a: Fitted, b: Fitted) -> bool:
    return list(a.state) == list(b.state) and all(torch.equal(a.state[k], b.state[k]) for k in a.state)


def test_recipes() -> None:
    reference = RECIPES["reference"]
    assert (reference.router_epochs, reference.router_rate, reference.router_batch) == (5, 1e-4, 32)
    assert (reference.cae_epochs, reference.cae_rate, reference.cae_batch) == (15, 1e-3, 8)
    assert reference.threshold_rule == "mean_plus_3sigma"
    assert all(name == recipe.name for name, recipe in RECIPES.items())


# -------------------------------------------------------------------------------------------------------- CAE


def test_the_loss_falls_and_the_result_loads() -> None:
    layers = small_layers(10)
    told: list[tuple[int, int]] = []
    fitted = cae(layers, RECIPE, progress=lambda done, of: told.append((done, of)))
    assert len(fitted.losses) == 6 and fitted.losses[-1] < 0.7 * fitted.losses[0]
    assert fitted.best_epoch == int(np.argmin(fitted.losses)) and fitted.seconds > 0
    assert told == [(i, 6) for i in range(1, 7)]
    assert all(v.device.type == "cpu" and not v.requires_grad for v in fitted.state.values())
    load_cae(fitted.state)


def test_a_seed_decides_everything_and_the_global_generator_nothing() -> None:
    layers, recipe = small_layers(7), replace(RECIPE, cae_epochs=2)
    first = cae(layers, recipe)
    torch.manual_seed(123)
    np.random.seed(5)
    before = torch.get_rng_state()
    again = cae(layers, recipe)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, again) and first.losses == again.losses
    assert not same(first, cae(layers, recipe, seed=1))


def test_the_best_epoch_is_kept_and_not_the_last() -> None:
    layers = small_layers(8)
    for seed in range(8):
        wild = replace(RECIPE, cae_rate=0.02, cae_epochs=10)
        fitted = cae(layers, wild, seed=seed)
        if fitted.best_epoch < 9:
            break
    assert fitted.best_epoch == int(np.argmin(fitted.losses)) < 9, "no run whose last epoch is not its best"
    shorter = cae(layers, replace(wild, cae_epochs=fitted.best_epoch + 1), seed=seed)
    assert shorter.losses == fitted.losses[: fitted.best_epoch + 1] and same(shorter, fitted)


@pytest.mark.parametrize(("count", "batch"), [(9, 8), (5, 4), (3, 2), (7, 2)])
def test_a_last_batch_of_one_image_does_not_change_the_mean_loss(count: int, batch: int) -> None:
    """Equal images and a rate of zero: every batch has the same loss, and so has every epoch."""
    layer2, layer3 = small_layers(1)
    recipe = replace(RECIPE, cae_rate=0.0, cae_epochs=1, cae_batch=batch)
    even = cae((layer2.repeat(batch, 1, 1, 1), layer3.repeat(batch, 1, 1, 1)), recipe)
    odd = cae((layer2.repeat(count, 1, 1, 1), layer3.repeat(count, 1, 1, 1)), recipe)
    assert odd.losses[0] == pytest.approx(even.losses[0], rel=1e-4)


@pytest.mark.parametrize(("count", "batch"), [(1, 8), (1, 1), (2, 1), (3, 1), (2, 8)])
def test_few_images_and_batches_of_one(count: int, batch: int) -> None:
    fitted = cae(small_layers(count), replace(RECIPE, cae_epochs=2, cae_batch=batch))
    assert np.isfinite(fitted.losses).all() and len(fitted.losses) == 2


def test_divergence_is_an_error_that_says_so() -> None:
    layer2, layer3 = small_layers(4)
    layer2[2, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"diverged.*epoch 1"):
        cae((layer2, layer3), RECIPE)


def test_bfloat16_trains_float32_weights() -> None:
    layer2, layer3 = small_layers(6)
    fitted = fit_cae(
        layer2.bfloat16(), layer3.bfloat16(), replace(RECIPE, cae_epochs=3), device="cpu", precision="bfloat16"
    )
    assert fitted.losses[-1] < fitted.losses[0]
    assert {v.dtype for k, v in fitted.state.items() if not k.endswith("tracked")} == {torch.float32}
    full = cae((layer2, layer3), replace(RECIPE, cae_epochs=3))
    assert fitted.losses == pytest.approx(full.losses, rel=0.1)  # 0.053 on a CPU without AVX512


# ----------------------------------------------------------------------------------------------------- router


def two_classes(count: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Dark and bright noise, in turn."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = generator.integers(0, 60, (count, size, size, 3)) + 180 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels.astype(np.int64)


def test_the_router_tells_two_classes_apart() -> None:
    pixels, labels = two_classes(10)
    told: list[tuple[int, int]] = []
    fitted, frozen, accuracy = fit_router(
        pixels, labels, 2, {}, RECIPE, device="cpu", precision="float32", progress=lambda *done: told.append(done)
    )
    assert accuracy == 1.0 and frozen == 0 and told[-1] == (12, 12)
    assert fitted.losses[-1] < fitted.losses[0] and fitted.best_epoch == int(np.argmin(fitted.losses))
    unseen, truth = two_classes(6)
    with torch.inference_mode():
        index, confidence = route(load_router(fitted.state)(normalise(torch.from_numpy(unseen[::-1].copy()))))
    assert index.tolist() == truth[::-1].tolist() and bool((confidence > 0.5).all())


def test_the_router_repeats_for_a_seed() -> None:
    pixels, labels = two_classes(6)
    recipe = replace(RECIPE, router_epochs=1, router_batch=4)

    def fit(seed: int) -> Fitted:
        return fit_router(pixels, labels, 2, {}, recipe, device="cpu", precision="float32", seed=seed)[0]

    before = torch.get_rng_state()
    first, again, other = fit(0), fit(0), fit(1)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, again) and not same(first, other)


def test_folded_norms_stay_as_they_are_and_the_rest_is_trained() -> None:
    torch.manual_seed(0)
    initial = build_router(1000).state_dict()
    for key in initial:
        if ".bn" in key or key.startswith("bn") or "downsample.1" in key:
            initial[key] = torch.randn_like(initial[key]) * 0.1 if key.endswith("bias") else initial[key]
    initial = {k: v for k, v in initial.items() if k != "layer4.1.conv2.weight"}
    pixels, labels = two_classes(6)
    recipe = replace(RECIPE, router_epochs=1, router_batch=4)
    fitted, frozen, _ = fit_router(pixels, labels, 2, initial, recipe, device="cpu", precision="float32")
    assert frozen == 19
    state = fitted.state
    assert torch.equal(state["bn1.running_mean"], initial["bn1.running_mean"])
    assert torch.equal(state["layer4.0.downsample.1.running_var"], initial["layer4.0.downsample.1.running_var"])
    assert not torch.equal(state["layer4.1.bn2.running_mean"], initial["layer4.1.bn2.running_mean"])
    assert not torch.equal(state["conv1.weight"], initial["conv1.weight"])
    assert state["fc.weight"].shape == (2, 512)


def test_settled_norms_are_the_average_of_the_training_images() -> None:
    pixels, labels = two_classes(6)
    recipe = replace(RECIPE, router_epochs=1, router_batch=len(pixels), settle_norms=True)
    fitted, _, accuracy = fit_router(pixels, labels, 2, {}, recipe, device="cpu", precision="float32")
    seen = F.conv2d(normalise(torch.from_numpy(pixels)), fitted.state["conv1.weight"], stride=2, padding=3)
    assert torch.allclose(fitted.state["bn1.running_mean"], seen.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(fitted.state["bn1.running_var"], seen.var((0, 2, 3)), rtol=1e-4)
    plain, _, by_chance = fit_router(
        pixels, labels, 2, {}, replace(recipe, settle_norms=False), device="cpu", precision="float32"
    )
    assert torch.equal(plain.state["conv1.weight"], fitted.state["conv1.weight"]) and accuracy > by_chance


def test_a_small_last_batch_weighs_what_it_holds() -> None:
    pixels, labels = two_classes(9)
    recipe = replace(RECIPE, router_epochs=1, router_batch=len(pixels) - 2, settle_norms=True)
    fitted, _, _ = fit_router(pixels, labels, 2, {}, recipe, device="cpu", precision="float32")
    seen = F.conv2d(normalise(torch.from_numpy(pixels)), fitted.state["conv1.weight"], stride=2, padding=3)
    assert torch.allclose(fitted.state["bn1.running_mean"], seen.mean((0, 2, 3)), atol=1e-5)


def test_a_router_of_one_image() -> None:
    pixels, labels = two_classes(1, size=64)
    fitted, _, accuracy = fit_router(
        pixels, labels, 2, {}, replace(RECIPE, router_epochs=1), device="cpu", precision="bfloat16"
    )
    assert len(fitted.losses) == 1 and accuracy in (0.0, 1.0)


def test_wrong_initial_weights_are_named() -> None:
    pixels, labels = two_classes(2)
    with pytest.raises(ValueError, match="not ResNet-18 weights"):
        fit_router(pixels, labels, 2, {"conv1.weight": torch.zeros(1)}, RECIPE, device="cpu", precision="float32")


# --------------------------------------------------------------------------------------------------- features


def test_layers_are_filled_row_by_row(backbones: Backbones) -> None:
    pixels = random_pixels(3, seed=8)
    layer2, layer3 = torch.full((3, 512, 28, 28), -9.0), torch.full((3, 1024, 14, 14), -9.0)
    told: list[tuple[int, int]] = []
    extract_layers(
        pixels, backbones["v1"], layer2, layer3, device="cpu", precision="float32", micro_batch=2,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert told == [(2, 3), (3, 3)]
    with torch.inference_mode():
        for row in range(3):
            two, three = backbones["v1"](normalise(torch.from_numpy(pixels[row : row + 1])))
            torch.testing.assert_close(layer2[row], two[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(layer3[row], three[0], rtol=1e-5, atol=1e-5)
