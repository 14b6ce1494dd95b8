"""What other web sites make a browser send is refused, and the app listens where it is told to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest

from jobs.app import serve
from jobs.app.page import build
from jobs.app.runs import Runs
from jobs.app.serve import Login, launch
from tests.jobs.app.conftest import Archive

EVIL_SITE = "https://evil.example"


@pytest.fixture
def blocks(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gr.Blocks]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    blocks = build(None, (), Runs(archive.output))
    yield blocks
    blocks.close()


def test_another_site_does_nothing_in_the_name_of_who_has_logged_in(blocks: gr.Blocks) -> None:
    """As behind a proxy with TLS, where the browser sends Gradio's cookie along whatever the site."""
    url = launch(blocks, "127.0.0.1", 0, Login("ada", "pw"))
    with httpx.Client() as client:
        assert client.post(f"{url}login", data={"username": "ada", "password": "pw"}).is_success
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())

    def asked(path: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        plain = {"Cookie": cookies, "Host": "audit.plant.example", **named}
        if path == "config":
            return httpx.get(url + path, headers=plain).status_code
        body = {"data": [], "fn_index": 0, "session_hash": "x"}
        return httpx.post(url + path, json=body, headers=plain).status_code

    for path in ("config", "gradio_api/queue/join"):
        assert asked(path) == 200  # a program
        assert asked(path, Origin="https://audit.plant.example") == 200
        assert asked(path, Origin="https://audit.plant.example", Sec_Fetch_Site="same-origin") == 200
        assert asked(path, Host="10.0.0.7:7860", Origin="http://10.0.0.7:7860") == 200
        assert asked(path, Host="127.0.0.1:7860", Sec_Fetch_Site="same-origin", Origin="https://a.example") == 200
        assert asked(path, Sec_Fetch_Site="none") == 200  # typed in
        for origin in (
            EVIL_SITE,
            "null",
            "https://audit.plant.example.evil.example",
            "http://audit.plant.example:8000",
        ):
            assert asked(path, Origin=origin) == 403, origin
        for site in ("cross-site", "same-site"):
            assert asked(path, Sec_Fetch_Site=site) == 403, site
            assert asked(path, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe") == 403
    assert asked("config", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document") == 200


def test_a_site_whose_name_leads_to_this_machine_sees_nothing(blocks: gr.Blocks) -> None:
    url = launch(blocks, "127.0.0.1", 0)
    for host in ("evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", "]", ""):
        refused = httpx.get(f"{url}config", headers={"Host": host})
        assert refused.status_code == 403 and "give it a --user" in refused.text, host
    for host in ("127.0.0.1:1", "localhost", "LOCALHOST:7860", "[::1]:7860"):
        assert httpx.get(f"{url}config", headers={"Host": host}).is_success, host


def test_no_site_shows_the_page_in_a_frame_and_no_file_is_taken_for_another_kind(blocks: gr.Blocks) -> None:
    url = launch(blocks, "127.0.0.1", 0)
    for answer in (httpx.get(url), httpx.get(f"{url}config"), httpx.get(url, headers={"Origin": EVIL_SITE})):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{url}monitoring/summary").status_code == 403


def test_a_port_that_somebody_else_takes_meanwhile_is_not_the_last_one(
    blocks: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = serve.free_port
    with socket.create_server(("127.0.0.1", 0)) as faster:
        taken = faster.getsockname()[1]
        ports = iter([taken, taken])
        monkeypatch.setattr(serve, "free_port", lambda address, port: next(ports, None) or free_port(address, port))
        url = launch(blocks, "127.0.0.1", 0)
        assert httpx.get(f"{url}config").is_success and str(taken) not in url


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_it_listens_on_the_newer_loopback_too(blocks: gr.Blocks, host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    url = launch(blocks, host, 0)
    assert url.startswith("http://[::1]:") and httpx.get(f"{url}config").is_success
