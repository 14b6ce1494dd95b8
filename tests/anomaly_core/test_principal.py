"""The autoencoder in closed form, against a singular value decomposition of the same features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anomaly_core.cae import load_cae
from anomaly_core.cae_training import fit_cae
from anomaly_core.features import assemble
from anomaly_core.principal import principal_cae
from anomaly_core.training import RECIPES, split

Layers = tuple[torch.Tensor, torch.Tensor]


def features(count: int, seed: int = 0, offset: float = 0.5) -> Layers:
    """Features of full rank on a grid of 4 x 4, their variance falling from channel to channel."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(1, 0.05, 1536)
    layer2 = torch.randn(count, 512, 4, 4, generator=generator) * scale[:512, None, None] + offset
    layer3 = torch.randn(count, 1024, 2, 2, generator=generator) * scale[512:, None, None] + offset
    return layer2, layer3


def projection(fitted: Layers, seen: Layers, components: int = 100) -> tuple[torch.Tensor, float]:
    """The reconstruction of ``seen`` by the first components of ``fitted``, in float64, and what it leaves of those."""
    rows = [assemble(*(layer.double() for layer in layers)).permute(0, 2, 3, 1) for layers in (fitted, seen)]
    positions = rows[0].reshape(-1, 1536)
    mean = positions.mean(dim=0)
    basis = torch.linalg.svd(positions - mean, full_matrices=False).Vh[:components]
    left = positions - mean - (positions - mean) @ basis.T @ basis
    rebuilt = (rows[1] - mean) @ basis.T @ basis + mean
    return rebuilt.permute(0, 3, 1, 2), float(left.square().mean())


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_the_reconstruction_is_the_projection_on_the_components(offset: float) -> None:
    layers, unseen = features(16, offset=offset), features(2, seed=1, offset=offset)
    model, left = principal_cae(*layers, micro_batch=5)
    want, want_left = projection(layers, unseen)
    assert left == pytest.approx(want_left, rel=0.01)
    with torch.inference_mode():
        seen = assemble(*unseen)
        for one in (model, load_cae(model.state_dict())):
            rebuilt = one(seen)
            errors, expected = ((seen - r).square().mean(dim=1) for r in (rebuilt, want.float()))
            torch.testing.assert_close(errors, expected, rtol=0.02, atol=1e-4)


def test_what_is_left_is_the_loss_on_the_training_images() -> None:
    layers = features(12)
    model, left = principal_cae(*layers)
    with torch.inference_mode():
        seen = assemble(*layers)
        assert left == pytest.approx(float((model(seen) - seen).square().mean()), rel=1e-3)


def test_the_micro_batch_and_the_order_do_not_matter_much() -> None:
    layers = features(12)
    errors = [principal_cae(*layers, micro_batch=size)[1] for size in (1, 5)]
    errors.append(principal_cae(layers[0].flip(0), layers[1].flip(0))[1])
    assert errors == pytest.approx([errors[0]] * 3, rel=0.02)


def test_features_in_bfloat16_give_nearly_the_same() -> None:
    layers = features(12)
    full, half = principal_cae(*layers)[1], principal_cae(layers[0].bfloat16(), layers[1].bfloat16())[1]
    assert half == pytest.approx(full, rel=0.05)


def test_too_few_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="96 positions are too few for 100 components"):
        principal_cae(*features(6))


def test_the_recipe_chooses_it() -> None:
    layers = features(8)
    fitted = fit_cae(*layers, RECIPES["small"], device="cpu", precision="float32")
    model, left = principal_cae(*layers)
    assert (fitted.losses, fitted.best_epoch) == ([left], 0)
    assert all(torch.equal(fitted.state[k], v) for k, v in model.state_dict().items())
    descended = fit_cae(
        *layers, replace(RECIPES["small"], cae="gradient", cae_epochs=1), device="cpu", precision="float32"
    )
    assert not torch.equal(descended.state["encoder.0.weight"], fitted.state["encoder.0.weight"])


@pytest.mark.parametrize(("count", "share", "aside"), [(40, 0.25, 10), (10, 0.25, 2), (4, 0.25, 2), (209, 0.1, 21)])
def test_split_leaves_every_image_to_one_side(count: int, share: float, aside: int) -> None:
    fit, calibrate = split(count, share, seed=0)
    assert len(calibrate) == aside and len(fit) == count - aside
    assert sorted([*fit, *calibrate]) == list(range(count))
    assert (np.diff(fit) > 0).all() and (np.diff(calibrate) > 0).all()
    np.testing.assert_array_equal(split(count, share, seed=0)[0], fit)
    if count > 10:
        assert any((split(count, share, seed=seed)[1] != calibrate).any() for seed in (1, 2))


def test_split_without_a_share_gives_all_to_both() -> None:
    fit, calibrate = split(5, 0, seed=0)
    assert fit.tolist() == calibrate.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("count", "share"), [(3, 0.25), (2, 0.5), (0, 0.5), (10, 1.0), (10, 0.9)])
def test_too_few_images_to_split_are_refused(count: int, share: float) -> None:
    with pytest.raises(ValueError, match=f"{count} images are too few to hold out"):
        split(count, share, seed=0)
