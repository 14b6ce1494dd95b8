"""Plain PyTorch re-statement of "Classifier-Guided Anomaly Detection with CAE (MVTec AD)".

Source of the algorithm: the public two-stage reference pipeline of that name, as the project's method notes
state it (1 preprocessing, 2 router, 3 features, 4 per-category CAE, 5 score, threshold and decision).
Float32, one image at a time when scoring, no code shared with the package: a slow oracle for tests.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision import transforms as T

Form = Literal["v1.5", "v1"]
State = dict[str, Tensor]
Weights = Mapping[str, Tensor]
Images = Mapping[str, Sequence[Path]]  # category: paths
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEPS = T.Compose([T.Resize((224, 224), T.InterpolationMode.BILINEAR), T.ToTensor(), T.Normalize(MEAN, STD)])


def preprocess(image: Image.Image) -> Tensor:
    """Section 1: [1, 3, 224, 224]; Pillow resizes the 8-bit image; EXIF orientation is ignored."""
    return cast(Tensor, STEPS(image.convert("RGB")).unsqueeze(0))


def load_image(path: Path | str) -> Tensor:
    with Image.open(path) as image:
        return preprocess(image)


def resnet50(form: Form, weights: Weights | None = None) -> models.ResNet:
    """Section 3: a frozen ResNet-50 without layer4 and fc, in torchvision's (v1.5) or Caffe's (v1) form."""
    if form not in ("v1.5", "v1"):
        raise ValueError(f"unknown form of ResNet-50: {form!r}")
    model = models.resnet50(weights=None)
    model.layer4, model.fc = nn.Identity(), nn.Identity()
    if form == "v1":
        model.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
        for block in (model.layer2[0], model.layer3[0]):
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    if weights is not None:
        model.load_state_dict({k: v for k, v in weights.items() if not k.startswith(("layer4.", "fc."))})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def features(model: models.ResNet, tensor: Tensor) -> Tensor:
    """Section 3: [1, 1536, 28, 28] from the outputs of layer2 and layer3, caught by hooks."""
    caught: list[Tensor] = []
    layers = (model.layer2, model.layer3)
    hooks = [layer.register_forward_hook(lambda _m, _i, output: caught.append(output)) for layer in layers]
    model(tensor)
    for hook in hooks:
        hook.remove()
    low, high = (nn.AvgPool2d(kernel_size=3, stride=1, padding=1)(maps) for maps in caught)
    high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([low, high], dim=1)


class CAE(nn.Module):
    """Section 4: 1x1 convolutions C -> (C + 2d)/2 -> 2d -> d and back; keys encoder.0 ... decoder.6."""

    def __init__(self, channels: int = 1536, latent: int = 100) -> None:
        super().__init__()
        sizes = [channels, (channels + 2 * latent) // 2, 2 * latent, latent]
        self.encoder, self.decoder = self._half(*sizes), self._half(*sizes[::-1])

    @staticmethod
    def _half(a: int, b: int, c: int, d: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(a, b, kernel_size=1), nn.BatchNorm2d(b), nn.ReLU(),
            nn.Conv2d(b, c, kernel_size=1), nn.BatchNorm2d(c), nn.ReLU(),
            nn.Conv2d(c, d, kernel_size=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.encoder(x)))


def router(classes: int, init: Weights | None = None) -> models.ResNet:
    """Section 2: ResNet-18 with `fc` over the categories; what `init` lacks (layer4, fc) stays fresh."""
    model = models.resnet18(weights=None)
    model.fc = nn.Linear(model.fc.in_features, classes)
    if init is not None:
        fresh = {k: value for k, value in model.state_dict().items() if k.startswith(("layer4.", "fc."))}
        used = {k: value for k, value in init.items() if not k.startswith("fc.")}
        model.load_state_dict(fresh | used, strict=True)
    return model


def train_router(
    images: Images, *, init: Weights | None = None, epochs: int = 5, batch: int = 32, lr: float = 1e-4,
    seed: int = 0,
) -> State:  # fmt: skip
    """Section 2: cross-entropy, Adam, alphabetical classes; norms folded in convolutions stay in eval."""
    names = sorted(images)
    inputs = torch.cat([load_image(path) for name in names for path in images[name]])
    labels = torch.tensor([index for index, name in enumerate(names) for _ in images[name]])
    folded = init is not None and not bool(init["bn1.running_mean"].any())
    build = partial(router, len(names), init)
    return _train(build, inputs, labels, F.cross_entropy, epochs, batch, lr, seed, folded)


def train_cae(maps: Tensor, *, epochs: int = 15, batch: int = 8, lr: float = 1e-3, seed: int = 0) -> State:
    """Section 4: MSE and Adam on the features [N, C, H, W] of normal images; lowest-loss epoch kept."""
    return _train(partial(CAE, maps.shape[1]), maps, maps, F.mse_loss, epochs, batch, lr, seed)


@torch.random.fork_rng(devices=[])
def _train(
    build: Callable[[], nn.Module], inputs: Tensor, targets: Tensor, criterion: Callable[..., Tensor],
    epochs: int, batch: int, lr: float, seed: int, freeze_norms: bool = False,
) -> State:  # fmt: skip
    torch.manual_seed(seed)
    model, best = build(), float("inf")
    kept = copy.deepcopy(dict(model.state_dict()))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        model.train()
        for module in model.modules():
            if freeze_norms and isinstance(module, nn.BatchNorm2d):
                module.eval()
        total, order = 0.0, torch.randperm(len(inputs))
        for index in torch.split(order, batch):
            optimizer.zero_grad()
            loss = criterion(model(inputs[index]), targets[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(index)
        if total < best:
            best, kept = total, copy.deepcopy(dict(model.state_dict()))
    return kept


def error_map(maps: Tensor, rebuilt: Tensor) -> Tensor:
    """Section 5: mean over channels of (F - R)^2; [C, H, W] or [1, C, H, W] to [H, W]."""
    return ((maps - rebuilt) ** 2).mean(dim=-3).squeeze(0)


def score(errors: Tensor, size: int = 224, top: int = 10) -> float:
    """Section 5: mean of the `top` highest pixels of the error map [H, W] resized to `size` x `size`."""
    large = F.interpolate(errors[None, None], size=(size, size), mode="bilinear", align_corners=False)
    return float(large.flatten().topk(top).values.mean())


def thresholds(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Section 5: mean + 3 population standard deviations of the scores of the normal training images."""
    return {name: statistics.fmean(values) + 3 * statistics.pstdev(values) for name, values in scores.items()}


def decide(value: float, threshold: float) -> Literal["anomalous", "normal"]:
    return "anomalous" if value >= threshold else "normal"


def load_cae(state: Weights) -> CAE:
    model = CAE(state["encoder.0.weight"].shape[1], state["encoder.6.weight"].shape[0])
    model.load_state_dict(dict(state))
    return model.eval()


def make_bundle(
    directory: Path, images: Images, *, backbone: Weights, form: Form, router_init: Weights | None = None,
    epochs_router: int = 1, epochs_cae: int = 1, seed: int = 0, limit: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train on normal images and write the reference's files; returns the thresholds."""
    directory.mkdir(parents=True, exist_ok=True)
    used = {name: sorted(images[name])[:limit] for name in sorted(images)}
    state = train_router(used, init=router_init, epochs=epochs_router, seed=seed)
    torch.save({"epoch": epochs_router, "model_state_dict": state}, directory / "best_classifier.pth")
    extractor = resnet50(form, backbone)
    scores: dict[str, list[float]] = {}
    for name, paths in used.items():
        maps = torch.cat([features(extractor, load_image(path)) for path in paths])
        state = train_cae(maps, epochs=epochs_cae, seed=seed)
        torch.save(state, directory / f"cae_{name}.pth")
        model = load_cae(state).requires_grad_(False)
        scores[name] = [score(error_map(one, model(one[None]))) for one in maps]
    limits = thresholds(scores)
    (directory / "thresholds.json").write_text(json.dumps(limits, indent=4), encoding="utf-8")
    return limits


@torch.no_grad()
def score_image(
    directory: Path, path: Path, *, backbone: Weights, form: Form, categories: Sequence[str]
) -> dict[str, Any]:
    """Route, extract, rebuild, score and decide one image from the files of a bundle."""
    names, tensor = sorted(categories), load_image(path)
    classifier = router(len(names))
    state = torch.load(directory / "best_classifier.pth", map_location="cpu", weights_only=True)
    classifier.load_state_dict(state.get("model_state_dict", state))
    chances = classifier.eval()(tensor).softmax(dim=1)[0]
    category = names[int(chances.argmax())]
    state = torch.load(directory / f"cae_{category}.pth", map_location="cpu", weights_only=True)
    maps = features(resnet50(form, backbone), tensor)
    errors = error_map(maps, load_cae(state)(maps))
    value, limits = score(errors), json.loads((directory / "thresholds.json").read_text(encoding="utf-8"))
    return {
        "category": category, "confidence": float(chances.max()), "score": value, "error_map": errors.numpy(),
        "threshold": limits[category], "decision": decide(value, limits[category]),
    }  # fmt: skip


@torch.no_grad()
@torch.random.fork_rng(devices=[])
def random_backbone(seed: int = 0, batch: int = 4) -> State:
    """A seeded random ResNet-50 up to layer3, its BatchNorm statistics settled on seeded smooth images."""
    torch.manual_seed(seed)
    model = resnet50("v1.5")
    smooth = F.interpolate(torch.rand(batch, 3, 12, 12), size=(224, 224), mode="bicubic").clamp(0, 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a cumulative average: one pass settles the statistics
    model.train()(T.Normalize(MEAN, STD)(smooth))
    return dict(model.state_dict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a reference bundle and score a few test images.")
    parser.add_argument("--images", type=Path, required=True, help="folder in the MVTec AD layout")
    parser.add_argument("--backbone", type=Path, required=True, help="ResNet-50 state dict")
    parser.add_argument("--form", choices=["v1.5", "v1"], required=True)
    parser.add_argument("--router-init", type=Path, help="ResNet-18 state dict to start the router from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", required=True)
    parser.add_argument("--limit", type=int, help="training images per category")
    parser.add_argument("--epochs", type=int, default=1, help="of the router and of each CAE")
    args = parser.parse_args()
    used = {"form": args.form, "backbone": torch.load(args.backbone, map_location="cpu", weights_only=True)}
    init = args.router_init and torch.load(args.router_init, map_location="cpu", weights_only=True)
    images = {name: list(args.images.glob(f"{name}/train/good/*.png")) for name in args.categories}
    recipe = {"epochs_router": args.epochs, "epochs_cae": args.epochs, "limit": args.limit}
    make_bundle(args.output, images, router_init=init, **recipe, **used)
    rows = {}
    for path in sorted(path for name in images for path in args.images.glob(f"{name}/test/*/00[01].png")):
        row = score_image(args.output, path, categories=args.categories, **used)
        rows[path.relative_to(args.images).as_posix()] = {k: row[k] for k in row if k != "error_map"}
    print(json.dumps(rows, indent=2))
