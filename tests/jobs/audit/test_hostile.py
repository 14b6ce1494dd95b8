"""A manifest that somebody made up to get at what is not theirs: audited for real, beside a canary that would sing."""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.audit import exits
from jobs.audit.command import run_command
from jobs.cli import app
from tests.bundles import random_pixels
from tests.jobs.audit.tables import published

SONG, SECRET = b"tHeCaNaRySiNgS", "mArKeDsEcReT99"
# {host}, {port}: of the canary; {canary}: a file outside the folder of the manifest, which is {root}.
NOT_ALLOWED = [
    "http://{host}:{port}/a.png",
    "HTTP://{host}:{port}/a.png",
    "hTTp://{host}:{port}/a.png",
    "https://{host}:{port}/a.png",
    "http://localhost:{port}/a.png",
    "http://localhost.:{port}/a.png",
    "http://127.1:{port}/a.png",
    "http://2130706433:{port}/a.png",
    "http://0x7f000001:{port}/a.png",
    "http://0177.0.0.1:{port}/a.png",
    "http://0.0.0.0:{port}/a.png",
    "http://[::1]:{port}/a.png",
    "http://[::ffff:127.0.0.1]:{port}/a.png",
    "http://[::ffff:7f00:1]:{port}/a.png",
    "http://\u2460\u2461\u2466.0.0.1:{port}/a.png",
    "http://127\u30020\u30020\u30021:{port}/a.png",
    "http://localtest.me:{port}/a.png",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "ftp://{host}:{port}/a.png",
    "sftp://{host}:{port}/a.png",
    "webhdfs://{host}:{port}/a.png",
    "github://org:repo/a.png",
    "s3://{host}:{port}/a.png",
    "s3://bucket/a.png",
    "\u017f3://bucket/a.png",
    "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/x/a.png",
    "memory://a.png",
    "data://a.png",
    "local://{canary}",
    "simplecache::http://{host}:{port}/a.png",
    "zip://a.png::http://{host}:{port}/a.zip",
    "blockcache::file://{canary}",
    "file://{canary}",
    "FILE://{canary}",
    "file://localhost{canary}",
    "{canary}",
    "/{canary}",
    "../outside/canary.png",
    "images/../../outside/canary.png",
    "{root}/../outside/canary.png",
    "{root}-secret/canary.png",
    "link.png",
    "folder/canary.png",
    "images/up/outside/canary.png",
    "/proc/self/environ",
    "/dev/stdin",
]
CREDENTIALS = [
    "http://user:{secret}@{host}:{port}/a.png",
    "s3://AKIAABCDEFGHIJKLMNOP:{secret}@bucket/a.png",
    "s3://key:{secret}/with/slash@bucket/a.png",
    "https://bucket.s3.amazonaws.com/a.png?X-Amz-Credential={secret}&X-Amz-Signature={secret}",
    "http://{host}:{port}/a.png?access_token={secret}",
]
# Names of files in the folder, however they look; there is no such file, and nobody else is asked.
OWN_NAMES = [
    "simplecache::{canary}",
    "file:{canary}",
    "%2e%2e/outside/canary.png",
    "..%2foutside%2fcanary.png",
    "..\\outside\\canary.png",
    "\\\\{host}@{port}\\share\\a.png",
    "\uff0e\uff0e/outside/canary.png",
    "~/canary.png",
    "$HOME/canary.png",
    "images/*.png",
]
PROBLEMS = {
    "control_character": ["images/0.png\0../../outside/canary.png", "http://{host}:{port}/\r\nX: 1"],
    "uri_too_long": ["a/" * 3000 + "../" * 3001 + "outside/canary.png"],
    "empty_uri": ["  "],
}
LONG_NAME = "images/" + "n" * 3000


@pytest.fixture
def heard() -> Iterator[tuple[str, list[str]]]:
    """Address of a server on loopback, and the requests that reached it."""
    requests: list[str] = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SONG)

        do_HEAD = do_PUT = do_POST = do_OPTIONS = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            requests.append(f"connection from {client_address}")
            return True

    server = Server(("0.0.0.0", 0), Canary)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    thread.join()
    server.server_close()


def write_everything(tmp_path: Path) -> Path:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "images", outside, tmp_path / "root-secret"):
        folder.mkdir(parents=True)
    canary = Image.fromarray(random_pixels(1, seed=1)[0])
    for path in (outside / "canary.png", tmp_path / "root-secret" / "canary.png"):
        canary.save(path)
        with open(path, "ab") as file:
            file.write(SONG)
    Image.fromarray(random_pixels(1, seed=2)[0]).save(root / "images" / "0.png")
    (root / "link.png").symlink_to(outside / "canary.png")
    (root / "folder").symlink_to(outside)
    (root / "images" / "up").symlink_to(tmp_path)
    return root


def everything_in(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".parquet":
            table = pq.read_table(file, partitioning=None)
            yield str(file), f"{table.to_pylist()} {table.schema.metadata}"
        elif file.is_file():
            yield str(file), file.read_bytes().decode("latin-1")


@pytest.mark.usefixtures("ray_cluster")
def test_it_gets_nothing(
    tmp_path: Path,
    bundle: str,
    heard: tuple[str, list[str]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, requests = heard
    host, port = address.split(":")
    root = write_everything(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{SECRET}-token")
    words = {"host": host, "port": port, "root": root, "canary": tmp_path / "outside/canary.png", "secret": SECRET}
    expected = {"images/0.png": None}
    for code, uris in {
        "not_allowed": NOT_ALLOWED,
        "credentials_in_uri": CREDENTIALS,
        "missing_object": OWN_NAMES,
        **PROBLEMS,
    }.items():
        expected |= {uri.format(**words) if "{" in uri else uri: code for uri in uris}
    expected[LONG_NAME] = "fetch_failed"  # the disk's own limit
    assert len(expected) > 60
    pq.write_table(pa.table({"uri": list(expected)}), root / "manifest.parquet")
    code = run_command(
        {
            "manifest": str(root / "manifest.parquet"),
            "bundle": bundle,
            "output": str(tmp_path / "out"),
            "run_date": "2026-01-02",
            "shard_rows": 40,
            "heatmaps": "all",
        }
    )
    assert code == exits.BUDGET_EXCEEDED
    rows = published(tmp_path / "out").to_pylist()
    found = {row["uri"]: (row["status"], row["error_code"], row["sha256"]) for row in rows}
    assert len(rows) == len(expected)
    for uri, why in expected.items():
        if why is None:
            assert found[uri][0] == "scored"
        elif why not in ("credentials_in_uri", "uri_too_long"):  # whose uri is not kept as it was
            assert found[uri] == ("failed", why, None), uri
    codes = [row["error_code"] for row in rows]
    assert {why: codes.count(why) for why in set(expected.values())} == {
        why: list(expected.values()).count(why) for why in set(expected.values())
    }
    assert requests == []
    assert urllib.request.urlopen(f"http://{address}/", timeout=10).read() == SONG  # it does sing
    assert len(requests) == 2
    out, err = capfd.readouterr()
    for where, text in [("stdout", out), ("stderr", err), *everything_in(tmp_path / "out")]:
        assert SECRET not in text, where
        assert SONG.decode() not in text, where
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == 2


@pytest.mark.parametrize("option", ["manifest", "bundle", "output"])
@pytest.mark.parametrize("uri", [uri for uri in CREDENTIALS if not uri.startswith("http://{host}:{port}/a.png?")])
def test_credentials_in_a_setting_are_refused_and_not_repeated(
    tmp_path: Path, option: str, uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = uri.format(secret=SECRET, host="h", port=1)
    settings: dict[str, Any] = {"manifest": str(tmp_path / "m.csv"), "bundle": str(tmp_path), "output": str(tmp_path)}
    assert run_command(settings | {option: uri}) == exits.USAGE
    assert run_command(settings | {"allow": (uri,)}) == exits.USAGE
    out, err = capfd.readouterr()
    assert "credentials in an address" in " ".join((out + err).split())
    assert SECRET not in out + err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "s3://key:{secret}@line/runs/2026-01-02/audit"],
        ["retry-failed", "--run", "s3://key:{secret}@line/runs/2026-01-02/audit"],
        ["train", "--images", "https://key:{secret}@host/images", "--output", "bundle"],
        ["train", "--images", "images", "--output=s3://key:{secret}@line/bundle"],
        ["manifest", "build", "https://key:{secret}@host/archive", "--output", "m.csv"],
        ["app", "--bundle", "https://host/bundle?X-Amz-Signature={secret}"],
    ],
)
def test_no_command_takes_or_repeats_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [word.format(secret=SECRET) for word in words])
    assert done.exit_code == exits.USAGE
    out, err = capfd.readouterr()
    said = " ".join((done.output + out + err).split())
    assert "credentials in an address" in said and "***" in said
    assert SECRET not in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("prefix", ["http://", "https://", "HTTPS:///", "s3://", "s3:///"])
def test_a_scheme_alone_is_no_place_to_allow(tmp_path: Path, prefix: str, capfd: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"manifest": str(tmp_path / "m.csv"), "bundle": str(tmp_path), "output": str(tmp_path)}
    assert run_command(settings | {"allow": (prefix,)}) == exits.USAGE
    out, err = capfd.readouterr()
    assert "name a bucket or a host" in " ".join((out + err).split())
