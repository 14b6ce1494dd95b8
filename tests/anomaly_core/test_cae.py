"""The autoencoder and the folding of its norms."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from anomaly_core.cae import CAE, load_cae
from anomaly_core.features import assemble
from anomaly_core.scoring import error_maps
from tests.anomaly_core.references import State
from tests.reference import pipeline


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(2, 1536, 28, 28, generator=torch.Generator().manual_seed(1))


def test_keys_and_shapes_are_the_references() -> None:
    ours, theirs = CAE().state_dict(), pipeline.CAE().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert list(ours) == list(theirs)


def test_number_of_parameters() -> None:
    widths = [1536, 868, 200, 100, 200, 868, 1536]
    convolutions = sum(a * b + b for a, b in pairwise(widths))
    norms = 2 * 2 * (868 + 200)
    count = sum(p.numel() for p in CAE().parameters())
    assert count == convolutions + norms and 3.05e6 < count < 3.065e6


def test_no_norm_and_no_relu_after_the_latent_and_the_output() -> None:
    for half in (CAE().encoder, CAE().decoder):
        assert [type(layer) for layer in half] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.Conv2d]


def test_folded_equals_unfolded_and_the_restatement(cae_weights: State, features: torch.Tensor) -> None:
    plain = CAE()
    plain.load_state_dict(dict(cae_weights))
    folded = load_cae(cae_weights)
    with torch.inference_mode():
        ours, unfolded = folded(features), plain.eval()(features)
        theirs = pipeline.load_cae(cae_weights)(features)
    scale = float(unfolded.abs().max())
    assert float((ours - unfolded).abs().max()) < 1e-5 * scale
    assert float((ours - theirs).abs().max()) < 1e-5 * scale


def test_loading_does_not_touch_the_given_weights(cae_weights: State) -> None:
    before = {k: v.clone() for k, v in cae_weights.items()}
    load_cae(cae_weights)
    assert all(torch.equal(before[k], cae_weights[k]) for k in before)


def test_weights_that_do_not_fit_are_named(cae_weights: State) -> None:
    with pytest.raises(ValueError, match=r"missing.*decoder\.6\.bias"):
        load_cae({k: v for k, v in cae_weights.items() if k != "decoder.6.bias"})
    with pytest.raises(ValueError, match=r"unknown.*surplus"):
        load_cae({**cae_weights, "surplus": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"other shapes.*encoder\.0\.weight"):
        load_cae({**cae_weights, "encoder.0.weight": torch.zeros(868, 512, 1, 1)})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 5e-3)])
def test_errors_without_the_feature_map_equal_the_plain_definition(
    cae_weights: State, layers: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype, tolerance: float
) -> None:
    layer2, layer3 = (layer.contiguous(memory_format=torch.channels_last) for layer in layers)
    with torch.inference_mode():
        features = assemble(layer2, layer3)
        want = error_maps(features, load_cae(cae_weights)(features))
        got = load_cae(cae_weights, dtype=dtype).errors(layer2.to(dtype), layer3.to(dtype))
    assert got.dtype == torch.float32 and got.shape == (5, 28, 28)
    assert float((got - want).abs().max() / want.max()) < tolerance
