"""The app: served for real, called as a program would, held against the inspector on the same bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from anomaly_core.bundle_manifest import BUNDLE_FILE, THRESHOLDS_FILE
from anomaly_core.calibration import p_value
from anomaly_core.inspector import Inspector
from jobs.app import command as command_module
from jobs.app.command import AppSettings, app_command
from jobs.app.page import build
from jobs.app.serve import launch
from jobs.bundles import read_bundle
from jobs.storage_errors import StorageAccessError
from tests.anomaly_core.files import encode
from tests.bundles import write_random_bundle

CATEGORIES = ["bolt", "plate", "ring"]
CALIBRATION = [n / 10 for n in range(1, 40)]


def picture(seed: int, size: tuple[int, int] = (300, 180)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    thresholds = {category: 0.5 + n for n, category in enumerate(CATEGORIES)}
    return write_random_bundle(
        tmp_path_factory.mktemp("bundle"),
        CATEGORIES,
        threshold=thresholds,
        source="random:0 <b>",
        calibration=CALIBRATION,
    )


@pytest.fixture(scope="module")
def inspector(bundle_folder: Path) -> Inspector:
    return Inspector(read_bundle(str(bundle_folder)), "cpu", "float32")


@pytest.fixture(scope="module")
def url(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        blocks = build(inspector)
        yield launch(blocks, "127.0.0.1", 0)
        blocks.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def ask(client: Client, folder: Path, name: str, data: bytes) -> dict[str, Any]:
    path = folder / name
    path.write_bytes(data)
    answer = client.predict(handle_file(path), api_name="/inspect")
    assert isinstance(answer, dict)
    return answer


def rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(3), "JPEG", quality=60, exif=exif)


def sixteen_bit() -> bytes:
    values = np.random.default_rng(4).integers(0, 65536, (90, 120), dtype=np.uint16)
    return encode(values, "PNG")


SCORED = {
    "a.png": lambda: encode(picture(1), "PNG"),
    "sixteen.png": sixteen_bit,
    "turned.jpg": rotated_jpeg,
    "named.jpg": lambda: encode(picture(5), "TIFF"),
    "palette.gif": lambda: encode(picture(6).convert("P"), "GIF"),
    "alpha.webp": lambda: encode(picture(7).convert("RGBA"), "WEBP", lossless=True),
    "cmyk.tif": lambda: encode(picture(8).convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", SCORED)
def test_the_endpoint_answers_what_the_inspector_says_of_the_same_bytes(
    client: Client, inspector: Inspector, tmp_path: Path, name: str
) -> None:
    data = SCORED[name]()
    expected = inspector.inspect(data)
    assert ask(client, tmp_path, name, data) == {
        "status": "scored",
        "width": expected.width,
        "height": expected.height,
        "category": expected.category,
        "category_confidence": expected.confidence,
        "score": expected.score,
        "threshold": expected.threshold,
        "margin": expected.margin,
        "p_value": p_value(expected.score, CALIBRATION),
        "decision": expected.decision,
        "decision_reason": expected.reason,
        "peak_x": expected.peak[0],
        "peak_y": expected.peak[1],
        "category_distance": None,
        "bundle_digest": inspector.bundle.digest,
    }


def test_of_several_users_at_once_each_gets_the_answer_to_his_image(
    url: str, inspector: Inspector, tmp_path: Path
) -> None:
    files = {f"{seed}.png": encode(picture(seed), "PNG") for seed in range(20, 28)}

    def answer(name: str) -> float:
        return float(ask(Client(url, verbose=False), tmp_path, name, files[name])["score"])

    with ThreadPoolExecutor(len(files)) as pool:
        found = list(pool.map(answer, files))
    assert found == [inspector.inspect(data).score for data in files.values()]
    assert len(set(found)) == len(files)


BROKEN = {
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "html_document"),
    "cut.png": (encode(picture(1), "PNG")[:-400], "truncated_image"),
    "notes.png": (b"not an image at all", "unsupported_format"),
    "empty.png": (b"", "empty_object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_image_is_answered_with_its_code(client: Client, tmp_path: Path, name: str) -> None:
    data, code = BROKEN[name]
    answer = ask(client, tmp_path, name, data)
    assert (answer["status"], answer["decision"], answer["error_code"]) == ("failed", "failed", code)
    assert answer["error_message"]
    assert "score" not in answer


def test_the_endpoint_reads_no_file_of_the_server_that_was_not_uploaded(url: str, bundle_folder: Path) -> None:
    secret = bundle_folder / "secret.png"
    secret.write_bytes(encode(picture(1), "PNG"))
    for payload in ({"path": str(secret), "meta": {"_type": "gradio.FileData"}}, {"path": str(secret)}):
        begun = httpx.post(f"{url}gradio_api/call/inspect", json={"data": [payload]})
        if begun.is_success:
            said = httpx.get(f"{url}gradio_api/call/inspect/{begun.json()['event_id']}", timeout=60).text
            assert "event: error" in said
            assert "score" not in said


def test_the_page_asks_nothing_of_other_hosts_and_offers_one_endpoint(url: str, client: Client) -> None:
    config = httpx.get(f"{url}config").json()
    assert config["analytics_enabled"] is False
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/inspect"]
    assert "googleapis" not in httpx.get(url).text + httpx.get(f"{url}theme.css").text


def test_an_upload_above_the_limit_is_refused(url: str) -> None:
    files = {"files": ("big.png", b"\0" * (64 * 2**20 + 1))}
    assert httpx.post(f"{url}gradio_api/upload", files=files, timeout=60).status_code == 413


def shown(inspector: Inspector, data: bytes | None) -> str:
    """What the page shows of an image, as the event of the upload makes it."""
    (event,) = [fn for fn in build(inspector).fns.values() if fn.name == "show"]
    assert event.fn is not None
    return "".join(event.fn(data))


def test_the_page_shows_the_figures_and_three_pictures(inspector: Inspector) -> None:
    data = encode(picture(1, (1300, 700)), "PNG")
    expected, page = inspector.inspect(data), shown(inspector, data)
    for text in (expected.category, f"{expected.score:.6g}", f"{expected.margin:.4f}", "1,300 x 700 px"):
        assert f"<dd>{text}</dd>" in page
    assert f"<dd>x {expected.peak[0]:,.0f}, y {expected.peak[1]:,.0f} px</dd>" in page
    assert f"la-badge la-{expected.decision}" in page
    assert f"<dd>{p_value(expected.score, CALIBRATION):.2%}</dd>" in page
    assert page.count("data:image/png;base64,") == 4  # the overlay lies over the picture


def test_the_page_says_why_a_file_was_not_scored_and_clears(inspector: Inspector) -> None:
    page = shown(inspector, BROKEN["page.jpg"][0])
    assert "<dd>html_document</dd>" in page
    assert "HTML or XML document" in page
    hostile = shown(inspector, b"x<img src=x onerror=alert(1)>")
    assert "<img src=x" not in hostile
    assert "&lt;img" in hostile
    assert "data:image" not in shown(inspector, None)


def test_each_decision_has_its_badge_and_its_reason_in_words(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inspector.inspect(encode(picture(1), "PNG"))
    cases = (
        ("normal", None, "The score is below the threshold."),
        ("anomalous", "score_at_or_above_threshold", "The score is at or above the threshold."),
        ("review", "low_routing_confidence", "A person should look at this part."),
    )
    for decision, reason, words in cases:
        one = replace(found, decision=decision, reason=reason)  # type: ignore[arg-type]
        monkeypatch.setattr(inspector, "inspect", lambda data, one=one: one)
        page = shown(inspector, b"any")
        assert f"la-{decision}'>{decision.capitalize()}<" in page
        assert words in page
        assert ("uncertain" in page) == (decision == "review")


def test_the_facts_name_every_category_and_are_escaped(inspector: Inspector) -> None:
    text = json.dumps(build(inspector, ["a warning"]).get_config_file()["components"], default=str)
    for category, threshold in inspector.bundle.thresholds.items():
        assert f"<td>{category}</td><td>{threshold:.6g}</td>" in text
    assert inspector.bundle.digest in text
    assert "a warning" in text
    assert "random:0 &lt;b&gt;" in text


def command(bundle: Path, *, port: int = 0, device: str = "cpu", precision: str = "auto") -> int:
    return app_command(AppSettings(str(bundle), None, port=port, device=device, precision=precision))


def test_a_bundle_that_is_not_there_or_damaged_returns_2(
    tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path / "nowhere") == 2
    for name in (BUNDLE_FILE, THRESHOLDS_FILE):
        (tmp_path / name).write_bytes((bundle_folder / name).read_bytes() + b" ")
    assert command(tmp_path) == 2
    assert BUNDLE_FILE in capsys.readouterr().err


def test_arguments_that_do_not_fit_return_2(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    assert command(bundle_folder, precision="bfloat16") == 2
    assert command(bundle_folder, device="tpu") == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command(bundle_folder, port=taken.getsockname()[1]) == 2


def test_storage_that_refuses_returns_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise StorageAccessError("no credentials for s3://models")

    monkeypatch.setattr(command_module, "read_bundle", refuse)
    assert app_command(AppSettings("s3://models/b", None, port=0, device="cpu")) == 4
    assert "no credentials" in capsys.readouterr().err
