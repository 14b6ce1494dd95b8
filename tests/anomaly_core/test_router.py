"""Router checkpoints, and which parts of pretrained weights are used, restarted and frozen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from anomaly_core.router import build_router, load_router, number_of_classes, pretrained_router, route, router_state

LAYER4 = [f"layer4.{block}.conv{i}.weight" for block in (0, 1) for i in (1, 2)]


@pytest.fixture
def folded() -> Iterator[dict[str, torch.Tensor]]:
    """ImageNet-like weights whose norms were folded away: identity plus bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_router(1000)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, 0, 0.1)
        yield {k: v.clone() for k, v in model.state_dict().items()}


def test_the_state_is_found_in_both_forms() -> None:
    state = {"fc.weight": torch.zeros(4, 512)}
    assert router_state(state) == state == router_state({"epoch": 3, "model_state_dict": state})
    for wrong in (None, 3, [state], {"epoch": 3}, {"model_state_dict": None}, {"state": state}, torch.zeros(1)):
        with pytest.raises(ValueError, match="state dict"):
            router_state(wrong)


def test_number_of_classes() -> None:
    assert number_of_classes({"fc.weight": torch.zeros(15, 512)}) == 15
    with pytest.raises(ValueError, match=r"fc\.weight"):
        number_of_classes({"fc.bias": torch.zeros(15)})


def test_build_router() -> None:
    model = build_router(7)
    assert model.training and model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_a_loaded_router_equals_the_unfolded_one() -> None:
    torch.manual_seed(2)
    model = build_router(3)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))  # moves the statistics of the norms
    state = model.state_dict()
    images = torch.randn(3, 3, 64, 64)
    loaded = load_router(state)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_named() -> None:
    state = build_router(3).state_dict()
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight"):
        load_router({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"})
    with pytest.raises(ValueError, match=r"unknown.*layer5\.0"):
        load_router({**state, "layer5.0.conv1.weight": torch.zeros(1)})


def test_route_is_the_highest_softmax_in_float32() -> None:
    index, confidence = route(torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, -100.0], [1000.0, 0.0, 0.0]]))
    assert index.tolist()[::2] == [1, 0] and index.dtype == torch.int64 and confidence.dtype == torch.float32
    e = torch.tensor([0.0, 2.0, 1.0]).double().exp()
    assert confidence.tolist() == pytest.approx([float(e[1] / e.sum()), 0.5, 1.0])
    _, half = route(torch.tensor([[0.0, 2.0, 1.0]], dtype=torch.bfloat16))
    assert half.dtype == torch.float32 and float(half) == pytest.approx(float(e[1] / e.sum()), rel=1e-6)


def test_complete_weights_are_taken_but_for_the_last_layer(folded: dict[str, torch.Tensor]) -> None:
    folded["layer1.0.bn1.running_mean"] += 0.3  # one norm that is alive
    model, frozen = pretrained_router(4, folded)
    state = model.state_dict()
    assert state["fc.weight"].shape == (4, 512)
    assert all(torch.equal(state[k], v) for k, v in folded.items() if not k.startswith("fc."))
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == 20 and len(frozen) == 19
    assert {id(m) for m in frozen} == {id(m) for name, m in norms.items() if name != "layer1.0.bn1"}


def test_missing_convolutions_start_afresh_with_their_norms(folded: dict[str, torch.Tensor]) -> None:
    lacking = {k: v for k, v in folded.items() if k not in LAYER4}
    model, frozen = pretrained_router(4, lacking)
    assert len(frozen) == 16
    named = dict(model.named_modules())
    restarted = [named[key.removesuffix(".weight").replace("conv", "bn")] for key in LAYER4]
    for norm in restarted:
        assert isinstance(norm, nn.BatchNorm2d)
        assert not any(norm is one for one in frozen)
        assert not norm.bias.any() and bool((norm.weight == 1).all())
    for key in LAYER4:
        assert float(model.state_dict()[key].std()) > 0
    assert torch.equal(model.state_dict()["layer4.0.downsample.0.weight"], folded["layer4.0.downsample.0.weight"])


def test_norms_as_torchvision_initialises_them_are_not_taken_for_folded_ones() -> None:
    _, frozen = pretrained_router(2, build_router(1000).state_dict())
    assert list(frozen) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("bn1.bias"), r"missing \['bn1\.bias'\]"),
        (lambda s: s.pop("layer2.0.downsample.0.weight"), r"missing \['layer2\.0\.downsample\.0\.weight'\]"),
        (lambda s: s.update({"layer5.weight": torch.zeros(1)}), r"unknown \['layer5\.weight'\]"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}), r"shapes \['conv1\.weight'\]"),
    ],
)
def test_weights_of_another_network_are_refused_naming_keys(folded: dict[str, torch.Tensor], change, match) -> None:  # type: ignore[no-untyped-def]
    change(folded)
    with pytest.raises(ValueError, match=match):
        pretrained_router(2, folded)


@pytest.mark.shared
def test_the_real_weights(shared_root: Path) -> None:
    path = shared_root / "weights" / "resnet18_imagenet_bn_folded_without_layer4_convs.pth"
    state = torch.load(path, weights_only=True)
    model, frozen = pretrained_router(3, state)
    assert len(frozen) == 16
    assert torch.equal(model.state_dict()["layer3.1.conv2.weight"], state["layer3.1.conv2.weight"])
