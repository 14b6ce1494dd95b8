"""Weights by name, without a network: torchvision's are replaced by random ones of the same shapes."""

from __future__ import annotations

import http.client
import io
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet18_Weights, ResNet50_Weights, WeightsEnum, resnet18, resnet50

from anomaly_core.bundle import save_pth
from anomaly_core.resnet import RESNET50_TO_LAYER3
from jobs import weights as module
from jobs.storage import write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join
from jobs.weights import WeightsError, backbone_weights, random_seed, router_weights

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def states() -> dict[type[WeightsEnum], State]:
    torch.manual_seed(0)
    return {
        ResNet50_Weights: dict(resnet50(weights=None).state_dict()),
        ResNet18_Weights: dict(resnet18(weights=None).state_dict()),
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, states: dict[type[WeightsEnum], State]) -> list[tuple[str, Any]]:
    """What torchvision was asked for; it answers from memory."""
    calls: list[tuple[str, Any]] = []

    def get(self: WeightsEnum, *arguments: Any, **options: Any) -> State:
        calls.append((f"{type(self).__name__}.{self.name}", options))
        return states[type(self)]

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get)
    return calls


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def get(self: WeightsEnum, *arguments: Any, **options: Any) -> State:
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get)


def equal(left: State, right: State) -> bool:
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize(("name", "entry"), [(None, "IMAGENET1K_V2"), ("IMAGENET1K_V1", "IMAGENET1K_V1")])
def test_torchvision_names_of_the_backbone(
    asked: list[tuple[str, Any]], states: dict[type[WeightsEnum], State], name: str | None, entry: str
) -> None:
    got = backbone_weights(name, None)
    assert asked == [(f"ResNet50_Weights.{entry}", {"progress": False, "check_hash": True})]
    assert (got.form, got.source) == ("v1.5", f"torchvision ResNet-50 {entry}")
    wanted = RESNET50_TO_LAYER3.shapes()
    assert list(got.state) == list(wanted)
    assert all(torch.equal(got.state[k], states[ResNet50_Weights][k]) for k in wanted)
    assert not any(k.startswith(("layer4", "fc")) for k in got.state)


def test_the_form_of_torchvisions_weights_is_known(asked: list[tuple[str, Any]]) -> None:
    assert backbone_weights("IMAGENET1K_V1", "v1.5").form == "v1.5"
    asked.clear()
    for name in (None, "DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2"):
        with pytest.raises(WeightsError, match=r"are of form v1\.5, not v1$"):
            backbone_weights(name, "v1")
    assert asked == []


@pytest.mark.parametrize("name", [None, "DEFAULT", "IMAGENET1K_V1"])
def test_torchvision_names_of_the_router(
    asked: list[tuple[str, Any]], states: dict[type[WeightsEnum], State], name: str | None
) -> None:
    state, source = router_weights(name)
    assert asked == [("ResNet18_Weights.IMAGENET1K_V1", {"progress": False, "check_hash": True})]
    assert source == "torchvision ResNet-18 IMAGENET1K_V1"
    assert equal(state, states[ResNet18_Weights])


@pytest.mark.parametrize("name", ["IMAGENET1K_V2", "imagenet1k_v1", "IMAGENET1K_SWAG", "ResNet18_Weights.DEFAULT"])
def test_names_that_the_router_has_not(asked: list[tuple[str, Any]], name: str) -> None:
    with pytest.raises(WeightsError, match=f"--router-weights {name}: neither a file nor a torchvision name"):
        router_weights(name)
    assert asked == []


NO_NETWORK = [
    urllib.error.URLError("Name or service not known"),
    urllib.error.HTTPError("http://x", 403, "Forbidden", http.client.HTTPMessage(), None),
    ConnectionResetError(104, "reset"),
    TimeoutError("timed out"),
]
ALSO_NO_NETWORK = [
    http.client.IncompleteRead(b"12", 3),
    http.client.RemoteDisconnected("closed"),
    RuntimeError('invalid hash value (expected "11ad3fa6", got "00000000")'),
]


@pytest.mark.parametrize("error", NO_NETWORK, ids=lambda e: type(e).__name__)
def test_without_a_network_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    failing(monkeypatch, error)
    with pytest.raises(
        WeightsError, match=r"ResNet-50 IMAGENET1K_V2 weights cannot be downloaded.*give a file.*hub cache"
    ):
        backbone_weights(None, None)
    with pytest.raises(
        WeightsError, match=r"ResNet-18 IMAGENET1K_V1 weights cannot be downloaded.*give a file.*hub cache"
    ):
        router_weights(None)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(
            e,
        )
        for e in ALSO_NO_NETWORK
    ],
    ids=[type(e).__name__ for e in ALSO_NO_NETWORK],
)
def test_a_download_that_is_cut_or_changed_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    failing(monkeypatch, error)
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        backbone_weights(None, None)


def test_no_port_is_opened_for_a_name_that_is_a_file(
    place: str, monkeypatch: pytest.MonkeyPatch, states: dict[type[WeightsEnum], State]
) -> None:
    failing(monkeypatch, AssertionError("torchvision was asked"))
    uri = join(place, "line 4", "r18.pth")
    write_bytes(uri, save_pth({"model_state_dict": states[ResNet18_Weights]}))
    state, source = router_weights(uri)
    assert source == "r18.pth"
    assert equal(state, states[ResNet18_Weights])


def test_a_file_of_backbone_weights(tmp_path: Path, states: dict[type[WeightsEnum], State]) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in states[ResNet50_Weights].items()}
    (tmp_path / "r50.pth").write_bytes(save_pth({k: v for k, v in half.items() if not k.startswith(("layer4", "fc"))}))
    got = backbone_weights(str(tmp_path / "r50.pth"), None)
    assert (got.form, got.source) == ("v1.5", "r50.pth")
    assert backbone_weights(str(tmp_path / "r50.pth"), "v1").form == "v1"
    for key in RESNET50_TO_LAYER3.shapes():
        expected = half[key].float() if half[key].is_floating_point() else half[key]
        assert got.state[key].dtype == expected.dtype and torch.equal(got.state[key], expected)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"^--backbone-weights .*/absent\.pth: neither a file nor a torchvision name"
    ):
        backbone_weights(str(tmp_path / "absent.pth"), None)
    with pytest.raises(WeightsError, match=r"^--router-weights .*/absent\.pth: neither a file nor a torchvision name"):
        router_weights(str(tmp_path / "absent.pth"))


def test_the_option_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        backbone_weights(str(tmp_path / "absent.pth"), None)
    assert str(caught.value).count("--backbone-weights") == 1


class Evil:
    """Unpickled without care, this would make a file."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("evil-was-here", "w")


def evil() -> bytes:
    buffer = io.BytesIO()
    torch.save({"conv1.weight": Evil()}, buffer)
    return buffer.getvalue()


NO_WEIGHTS = {
    "text": lambda: b"these are no weights",
    "html": lambda: b"<!DOCTYPE html><html></html>",
    "zeros": lambda: bytes(1000),
    "half a file": lambda: save_pth({"a": torch.zeros(1000)})[:2000],
    "a pickle": lambda: b"\x80\x04K\x01.",
    "a number": lambda: save_pth(7),
    "a list": lambda: save_pth([torch.zeros(3)]),
    "a dict of other things": lambda: save_pth({"conv1.weight": [1, 2]}),
    "code": evil,
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_file_that_holds_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(NO_WEIGHTS[kind]())
    with pytest.raises(WeightsError, match=r"--router-weights x\.pth: not a file of weights \(.+\)"):
        router_weights("x.pth")
    with pytest.raises(WeightsError, match=r"--backbone-weights x\.pth: not a file of weights \(.+\)"):
        backbone_weights("x.pth", None)
    assert not (tmp_path / "evil-was-here").exists()


def test_an_empty_file_holds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="not a file of weights"):
        router_weights(str(tmp_path / "x.pth"))


def test_weights_of_another_model_are_no_backbone(tmp_path: Path, states: dict[type[WeightsEnum], State]) -> None:
    (tmp_path / "r18.pth").write_bytes(save_pth(states[ResNet18_Weights]))
    with pytest.raises(WeightsError, match=r"--backbone-weights .*r18\.pth: not ResNet-50 weights up to layer3"):
        backbone_weights(str(tmp_path / "r18.pth"), None)
    other = {**states[ResNet50_Weights], "conv1.weight": torch.zeros(64, 3, 5, 5)}
    (tmp_path / "r50.pth").write_bytes(save_pth(other))
    with pytest.raises(WeightsError, match=r"other shapes at \['conv1\.weight'\]"):
        backbone_weights(str(tmp_path / "r50.pth"), None)


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a file of weights"):
        router_weights(str(tmp_path))


def test_a_bucket_that_is_not_there_gives_no_weights(s3: str) -> None:
    with pytest.raises((WeightsError, StorageAccessError)):
        router_weights("s3://no-such-bucket/a.pth")


def test_a_refusal_of_the_storage_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> bytes:
        raise StorageAccessError(f"{uri}: credentials refused")

    (tmp_path / "a.pth").write_bytes(b"")
    monkeypatch.setattr(module, "read_bytes", refuse)
    with pytest.raises(StorageAccessError):
        router_weights(str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("name", "seed"), [("random:0", 0), ("random:7", 7), ("random:007", 7), ("random:4294967295", 2**32 - 1)]
)
def test_random_weights_have_a_seed(name: str, seed: int) -> None:
    assert random_seed(name) == seed
    assert router_weights(name) == ({}, name)


@pytest.mark.parametrize(
    "name", ["random:", "random:-1", "random:x", "random:1.5", "random: 1", "random:0x1", "random:²"]
)
def test_random_weights_without_a_seed(name: str) -> None:
    with pytest.raises(WeightsError, match="write random:SEED, such as random:0"):
        random_seed(name)
