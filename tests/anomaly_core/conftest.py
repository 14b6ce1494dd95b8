"""Seeded random weights and a tiny reference bundle, made once for the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_core.cae import CAE
from anomaly_core.features import load_backbone
from anomaly_core.inspector import Inspector
from anomaly_core.training import extract_layers
from tests.anomaly_core.files import colours
from tests.anomaly_core.references import Backbones, ReferenceBundle, State
from tests.bundles import random_pixels, write_random_bundle
from tests.reference import pipeline


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """On a machine that is shared, torch's threads wait for one another: one thread was up to 15 times faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def backbone_weights() -> State:
    """A random ResNet-50 up to layer3 with settled norms; its keys are torchvision's."""
    return pipeline.random_backbone(0)


@pytest.fixture(scope="session")
def backbones(backbone_weights: State) -> Backbones:
    """Those weights, ready for inference, in both forms."""
    return {"v1.5": load_backbone(backbone_weights, "v1.5"), "v1": load_backbone(backbone_weights, "v1")}


@pytest.fixture(scope="session")
def layers(backbones: Backbones) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of five smooth pictures: layer2 (5, 512, 28, 28) and layer3 (5, 1024, 14, 14)."""
    layer2, layer3 = torch.empty(5, 512, 28, 28), torch.empty(5, 1024, 14, 14)
    model = backbones["v1.5"]
    extract_layers(random_pixels(5), model, layer2, layer3, device="cpu", precision="float32", micro_batch=4)
    return layer2, layer3


@pytest.fixture(scope="session")
def cae_weights() -> State:
    """A CAE whose norms have statistics and scales of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = CAE()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.2)
    return dict(model.state_dict())


@pytest.fixture(scope="session")
def reference_bundle(tmp_path_factory: pytest.TempPathFactory, backbone_weights: State) -> ReferenceBundle:
    """A bundle that the re-statement trained on three generated images of each of two categories."""
    root = tmp_path_factory.mktemp("reference")
    paths = {}
    for name, shift in (("cap", 0), ("gear", 120)):
        paths[name] = [root / f"{name}-{i}.png" for i in range(5)]
        for i, path in enumerate(paths[name]):
            pixels = colours(90, 110, seed=10 * shift + i) // 2 + shift
            Image.fromarray(pixels.astype("uint8")).save(path)
    training = {name: found[:3] for name, found in paths.items()}
    pipeline.make_bundle(root / "bundle", training, backbone=backbone_weights, form="v1.5")
    odd = root / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype("uint8")).save(odd)
    images = (paths["cap"][0], paths["gear"][0], paths["cap"][4], paths["gear"][4], odd)
    return ReferenceBundle(root / "bundle", backbone_weights, "v1.5", ("cap", "gear"), images)


@pytest.fixture(scope="session")
def inspector(reference_bundle: ReferenceBundle) -> Inspector:
    """That bundle, ready to inspect in float32 on the CPU."""
    return Inspector(reference_bundle.load(), "cpu", "float32")


@pytest.fixture(scope="session")
def described_files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files of a bundle of random weights with a bundle.json, categories cap and gear."""
    folder = write_random_bundle(tmp_path_factory.mktemp("described") / "bundle", ("cap", "gear"), threshold=2.5)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
