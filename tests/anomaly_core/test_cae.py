"""The autoencoder and the folding of its norms."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from anomaly_core.cae import CAE, load_cae
from anomaly_core.folding import fold_batch_norm
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
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())
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
    with pytest.raises(RuntimeError, match=r"Missing key.*decoder\.6\.bias"):
        load_cae({k: v for k, v in cae_weights.items() if k != "decoder.6.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*surplus"):
        load_cae({**cae_weights, "surplus": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for encoder\.0\.weight"):
        load_cae({**cae_weights, "encoder.0.weight": torch.zeros(868, 512, 1, 1)})


def test_folding_needs_eval_mode() -> None:
    with pytest.raises(ValueError, match="eval"):
        fold_batch_norm(CAE().train())


def test_only_a_norm_right_after_its_convolution_is_folded() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4),
        nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    images = torch.randn(2, 3, 9, 9)
    with torch.inference_mode():
        want = model.eval()(images)
        got = fold_batch_norm(model)(images)
    kinds = [type(module) for module in model]
    assert kinds == [nn.BatchNorm2d, nn.Conv2d, nn.Identity, nn.ReLU, nn.BatchNorm2d, nn.Sequential]
    assert [type(module) for module in model[5].children()] == [nn.Conv2d, nn.Identity]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
