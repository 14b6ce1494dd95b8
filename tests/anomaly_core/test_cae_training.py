"""What recipes add to the fitting of an autoencoder: each against the same thing written out at length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anomaly_core.cae import CAE, load_cae
from anomaly_core.cae_training import _some_positions, _Standard, fit_cae, residual_weights
from anomaly_core.features import assemble
from anomaly_core.principal import channel_moments
from anomaly_core.training import RECIPES, Fitted

Layers = tuple[torch.Tensor, torch.Tensor]
QUICK = replace(RECIPES["reference"], cae_epochs=2, cae_batch=2)


@pytest.fixture(scope="module")
def layers() -> Layers:
    """Of four images; channels of very different size."""
    generator = torch.Generator().manual_seed(0)
    layer2 = torch.rand(4, 512, 28, 28, generator=generator) * torch.linspace(0.1, 5, 512)[:, None, None]
    layer3 = torch.rand(4, 1024, 14, 14, generator=generator) + torch.linspace(0, 3, 1024)[:, None, None]
    return layer2, layer3


def fit(layers: Layers, **changes: object) -> Fitted:
    return fit_cae(*layers, replace(QUICK, **changes), device="cpu", precision="float32", seed=1)  # type: ignore[arg-type]


def test_moments_are_those_of_all_positions(layers: Layers) -> None:
    features = assemble(*layers).double().permute(1, 0, 2, 3).flatten(1)
    mean, variance = channel_moments(*layers, micro_batch=4)
    assert torch.allclose(mean, features.mean(dim=1), rtol=1e-6)
    assert torch.allclose(variance, features.var(dim=1, unbiased=False), rtol=1e-4, atol=1e-6)


def test_standardising_is_folded_into_the_convolutions(layers: Layers) -> None:
    standard = _Standard(*layers, "cpu")
    features = assemble(*layers)
    scaled = standard(features)
    assert scaled.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (scaled.var(dim=(0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3
    torch.manual_seed(3)
    model = CAE().eval()
    with torch.inference_mode():
        expected = model(scaled) * standard.deviation + standard.mean
        ordinary = CAE().eval()
        ordinary.load_state_dict(standard.folded(model.state_dict()))
        assert torch.allclose(ordinary(features), expected, rtol=1e-3, atol=1e-3)


def test_a_standardised_autoencoder_reconstructs_small_channels_as_well_as_large_ones(layers: Layers) -> None:
    features = assemble(*layers)
    _, variance = channel_moments(*layers)
    left = {}
    for standardise in (False, True):
        fitted = fit(layers, standardise=standardise, cae_epochs=4)
        with torch.inference_mode():
            residual = (features - load_cae(fitted.state)(features)).square().mean(dim=(0, 2, 3)).double()
        left[standardise] = residual / variance
    small = variance < variance.median()
    assert left[True][small].mean() < 0.8 * left[False][small].mean()


def test_a_falling_rate_keeps_the_last_epoch_and_learns(layers: Layers) -> None:
    fitted = fit(layers, cae_schedule="cosine", cae_epochs=4)
    assert fitted.best_epoch == 3 and fitted.losses[3] < fitted.losses[0]
    steady = fit(layers, cae_epochs=4)
    assert steady.losses[3] != fitted.losses[3]


def test_some_positions_are_whole_columns_of_the_features(layers: Layers) -> None:
    features = assemble(*layers).flatten(2)
    generator = np.random.default_rng(0)
    first, second = (_some_positions(*layers, 0.25, generator) for _ in range(2))
    places = np.sort(np.random.default_rng(0).permutation(784)[:196])
    assert first.shape == (4, 1536, 1, 196)
    assert torch.allclose(first[:, :, 0], features[:, :, torch.from_numpy(places)])
    assert not torch.equal(first, second)


def test_fewer_positions_fit_nearly_as_well(layers: Layers) -> None:
    whole, some = fit(layers, cae_epochs=6), fit(layers, cae_epochs=6, cae_positions=0.25)
    assert some.losses[-1] < 2 * whole.losses[-1] and some.losses[-1] < some.losses[0]


def test_weights_are_one_over_what_is_left(layers: Layers) -> None:
    cae = load_cae(fit(layers).state)
    features = assemble(*layers)
    with torch.inference_mode():
        left = (features - cae(features)).square().mean(dim=(0, 2, 3))
    weights = residual_weights(cae, *layers, micro_batch=4)
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)
    expected = 1 / left.clamp(min=left.median() / 100)  # the quietest channels do not decide every score
    assert (left < left.median() / 100).any()
    assert torch.allclose(weights / weights.mean(), expected / expected.mean(), rtol=1e-3)
    tilted = residual_weights(cae, *layers, layer2_weight=3.0, micro_batch=4)
    assert float(tilted.mean()) == pytest.approx(1.0, rel=1e-5)
    assert torch.allclose(tilted[:512] / tilted[512], 3 * weights[:512] / weights[512], rtol=1e-4)
    assert torch.allclose(tilted[512:] / tilted[512], weights[512:] / weights[512], rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_map_is_weighted_by_channel(layers: Layers, dtype: torch.dtype) -> None:
    state = fit(layers).state
    weights = torch.rand(1536, generator=torch.Generator().manual_seed(5)) + 0.1
    features = assemble(*layers)
    with torch.inference_mode():
        expected = (weights[:, None, None] * (features - load_cae(state)(features)).square()).mean(dim=1)
        found = load_cae(state, dtype=dtype, weights=weights).errors(*(layer.to(dtype) for layer in layers))
    assert torch.allclose(found, expected, rtol=1e-3 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("weights", [torch.ones(1535), torch.ones(1536).double(), torch.zeros(1536)])
def test_weights_that_do_not_fit_are_refused(layers: Layers, weights: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="channel weights must be 1536 positive float32"):
        load_cae(CAE().state_dict(), weights=weights)
