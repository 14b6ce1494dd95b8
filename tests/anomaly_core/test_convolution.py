"""The convolution for inference: folded, with the residual and the ReLU in the same pass."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from anomaly_core.convolution import Convolution, folded, fused_convolution_available
from anomaly_core.resnet import RESNET18, RESNET50_TO_LAYER3, ResNet


def lively(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A norm in eval mode that does something."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return norm.eval()


def test_this_torch_has_the_fused_convolution() -> None:
    # Without it the plain path gives the same results at half the speed; who changes torch must know.
    assert fused_convolution_available()


def test_bfloat16_runs_unfused_where_the_processor_cannot_fuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    weight, bias = torch.ones(2, 3, 1, 1), torch.zeros(2)
    assert Convolution(weight, bias, 1, "cpu", torch.float32).fused
    ours = Convolution(weight, bias, 1, "cpu", torch.bfloat16)
    assert not ours.fused
    assert ours(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).eq(3).all()


@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((1, 3, 7), (1, 2))))
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_convolution_norm_sum_and_relu(
    kernel: int, stride: int, fused: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fused and not fused_convolution_available(dtype):
        pytest.skip("oneDNN's fused convolution in bfloat16 needs AVX512")
    torch.manual_seed(kernel * 10 + stride)
    plain = nn.Conv2d(5, 8, kernel, stride, kernel // 2, bias=False)
    norm = lively(nn.BatchNorm2d(8))
    state = {f"c.{k}": v for k, v in plain.state_dict().items()} | {f"n.{k}": v for k, v in norm.state_dict().items()}
    monkeypatch.setattr("anomaly_core.convolution.fused_convolution_available", lambda dtype: fused)
    ours = Convolution(*folded(state, "c", "n"), stride, "cpu", dtype)
    assert ours.fused == fused
    x = torch.randn(3, 5, 13, 13).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        want = norm(plain(x))
        residual = torch.randn_like(want)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.05}
        for other, relu in itertools.product((None, residual), (True, False)):
            total = want if other is None else want + other
            result = ours(x.to(dtype), None if other is None else other.to(dtype), relu)
            assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(result.float(), total.relu() if relu else total, **tolerance)


def test_a_bias_of_the_convolution_is_folded_too() -> None:
    torch.manual_seed(0)
    plain, norm = nn.Conv2d(4, 6, 1), lively(nn.BatchNorm2d(6))
    state = {f"c.{k}": v for k, v in plain.state_dict().items()} | {f"n.{k}": v for k, v in norm.state_dict().items()}
    x = torch.randn(2, 4, 5, 5)
    with torch.inference_mode():
        torch.testing.assert_close(
            nn.functional.conv2d(x, *folded(state, "c", "n")), norm(plain(x)), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(nn.functional.conv2d(x, *folded(state, "c", None)), plain(x))


@pytest.mark.parametrize(("architecture", "build"), [(RESNET18, resnet18), (RESNET50_TO_LAYER3, resnet50)])
def test_names_shapes_and_outputs_are_torchvisions(architecture, build) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    theirs = build(weights=None)
    with torch.no_grad():
        theirs.train()(torch.randn(4, 3, 64, 64))  # moves the statistics of the norms
    theirs.eval()
    state = theirs.state_dict()
    above = ("fc.", "layer4.") if architecture.bottleneck else ("fc.",)
    used = {k: tuple(v.shape) for k, v in state.items() if not k.startswith(above) and "num_batches" not in k}
    assert architecture.shapes() == used
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        outputs = ResNet(architecture, state)(images)
        for number, ours in enumerate(outputs, 1):
            x = getattr(theirs, f"layer{number}")(x)
            assert float((ours - x).abs().max() / x.abs().max()) < 1e-5
    assert len(outputs) == (3 if architecture.bottleneck else 4)
