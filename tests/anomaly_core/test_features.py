"""The backbone in both forms against the re-statement, and the feature map."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from anomaly_core.features import CHANNELS, assemble, backbone_state, load_backbone, random_backbone_state
from anomaly_core.forms import GRID, BackboneForm
from anomaly_core.preprocess import normalise
from tests.anomaly_core.references import Backbones, State
from tests.bundles import random_pixels
from tests.reference import pipeline


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return normalise(torch.from_numpy(random_pixels(2, seed=4)))


@pytest.mark.parametrize("form", ["v1.5", "v1"])
def test_the_feature_map_equals_the_restatement(
    backbone_weights: State, backbones: Backbones, images: torch.Tensor, form: BackboneForm
) -> None:
    model = backbones[form]
    with torch.inference_mode():
        layers = model(images)
        ours = assemble(*layers)
    assert layers[0].shape == (2, 512, GRID, GRID) and layers[1].shape == (2, 1024, 14, 14)
    assert ours.shape == (2, CHANNELS, GRID, GRID)
    reference = pipeline.resnet50(form, backbone_weights)
    for one, image in zip(ours, images, strict=True):
        theirs = pipeline.features(reference, image[None])[0]
        assert float((one - theirs).norm() / theirs.norm()) < 2e-5  # 1.04e-5 on a CPU without AVX512


def test_the_two_forms_give_other_features(backbones: Backbones, images: torch.Tensor) -> None:
    with torch.inference_mode():
        modern, caffe = (backbones[form](images[:1])[0] for form in ("v1.5", "v1"))
    assert float((modern - caffe).norm() / modern.norm()) > 0.05


def test_an_unknown_form_is_refused(backbone_weights: State) -> None:
    with pytest.raises(ValueError, match=r"v2.*v1\.5 or v1"):
        load_backbone(backbone_weights, "v2")  # type: ignore[arg-type]


def test_a_whole_resnet_is_cut_to_what_is_used_in_float32(backbone_weights: State) -> None:
    whole = {k: v.half() if v.is_floating_point() else v for k, v in backbone_weights.items()}
    whole |= {"fc.weight": torch.zeros(1000, 2048), "layer4.0.conv1.weight": torch.zeros(1)}
    cut = backbone_state(whole)
    full = resnet50(weights=None).state_dict()
    assert set(cut) == {k for k in full if not k.startswith(("layer4.", "fc.")) and not k.endswith("tracked")}
    for key, value in cut.items():
        assert value.dtype == torch.float32
        assert value.data_ptr() != whole[key].data_ptr()
    torch.testing.assert_close(cut["conv1.weight"], backbone_weights["conv1.weight"], rtol=1e-3, atol=1e-4)


def test_missing_keys_are_named_and_counted(backbone_weights: State) -> None:
    lacking = {k: v for k, v in backbone_weights.items() if k not in ("bn1.bias", "layer3.5.conv3.weight")}
    with pytest.raises(ValueError, match=r"2 entries missing.*'bn1\.bias'.*'layer3\.5\.conv3\.weight'"):
        backbone_state(lacking)
    with pytest.raises(ValueError, match="entries missing"):
        load_backbone({"module." + k: v for k, v in backbone_weights.items()}, "v1.5")


def test_other_shapes_are_named(backbone_weights: State) -> None:
    with pytest.raises(ValueError, match=r"other shapes at \['conv1\.weight'\]"):
        backbone_state({**backbone_weights, "conv1.weight": torch.zeros(64, 1, 7, 7)})


def test_assemble_pools_with_zeros_that_count_and_does_not_align_corners() -> None:
    generator = torch.Generator().manual_seed(0)
    layer2, layer3 = torch.rand(2, 3, 28, 28, generator=generator), torch.rand(2, 5, 14, 14, generator=generator)
    result = assemble(layer2, layer3)
    assert result.shape == (2, 8, 28, 28)
    # By hand: nine shifted copies of the zero-padded map, divided by nine.
    padded2, padded3 = (nn.functional.pad(x.double(), (1, 1, 1, 1)) for x in (layer2, layer3))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    pooled2 = torch.stack([padded2[..., i : i + 28, j : j + 28] for i, j in shifts]).sum(dim=0) / 9
    pooled3 = torch.stack([padded3[..., i : i + 14, j : j + 14] for i, j in shifts]).sum(dim=0) / 9
    # Twice as large without aligned corners: pixel centres at -0.25, 0.25, 0.75 ..., held at the edges.
    at = ((torch.arange(28).double() + 0.5) / 2 - 0.5).clamp(0, 13)
    low, weight = at.floor().long(), at - at.floor()
    high = (low + 1).clamp(max=13)
    matrix = torch.zeros(28, 14, dtype=torch.float64)
    matrix[torch.arange(28), low] += 1 - weight
    matrix[torch.arange(28), high] += weight
    torch.testing.assert_close(result[:, :3].double(), pooled2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result[:, 3:].double(), matrix @ pooled3 @ matrix.T, rtol=1e-5, atol=1e-6)


def test_random_weights_are_seeded_and_settled(images: torch.Tensor) -> None:
    small = images[..., ::2, ::2]
    first, again, other = (random_backbone_state(small, seed) for seed in (3, 3, 4))
    assert torch.equal(first["layer3.5.conv3.weight"], again["layer3.5.conv3.weight"])
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    with torch.inference_mode():
        deep = load_backbone(first, "v1.5")(small)[1]
        # The statistics of a norm are those of its real input: the mean of the first is that of the first convolution.
        seen = nn.functional.conv2d(small, first["conv1.weight"], stride=2, padding=3).mean(dim=(0, 2, 3))
    torch.testing.assert_close(first["bn1.running_mean"], seen, rtol=1e-3, atol=1e-4)
    assert bool(deep.isfinite().all()) and 0.01 < float(deep.mean()) < 20


def test_branch_scales_what_the_residual_branches_add(images: torch.Tensor) -> None:
    small = images[..., ::4, ::4]
    state = random_backbone_state(small, seed=0, branch=0.3)
    last = [value for key, value in state.items() if key.endswith("bn3.weight")]
    assert len(last) == 3 + 4 + 6 and all(bool((value == 0.3).all()) for value in last)
    assert bool((state["layer1.0.bn2.weight"] == 1).all()) and bool((state["layer1.0.downsample.1.weight"] == 1).all())
