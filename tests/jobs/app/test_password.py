"""Who is let in, and that the password is nowhere where others could read it."""

from __future__ import annotations

import getpass
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from jobs.app import command as command_module
from jobs.app.command import AppSettings, app_command
from jobs.app.page import build
from jobs.app.password import VARIABLE, password_of
from jobs.app.runs import Runs
from jobs.app.serve import Login, is_loopback, launch
from jobs.audit.exits import AuditError
from jobs.cli import app
from tests.jobs.app.conftest import Archive


def test_the_password_is_of_the_file_the_environment_or_the_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "p").write_text("from the file\nanother line\n")
    monkeypatch.setenv(VARIABLE, "from the environment")
    assert password_of("ada", str(tmp_path / "p")) == "from the file"
    assert VARIABLE not in os.environ  # what is started later does not have it
    monkeypatch.setenv(VARIABLE, "from the environment")
    assert password_of("ada", None) == "from the environment" and VARIABLE not in os.environ
    with pytest.raises(AuditError, match="--user ada needs a password: set LINE_AUDIT_PASSWORD, or name a file"):
        password_of("ada", None)
    (tmp_path / "p").write_text("\n")
    with pytest.raises(AuditError, match="needs a password"):
        password_of("ada", str(tmp_path / "p"))
    with pytest.raises(AuditError, match=r"--password-file .*none: cannot be read"):
        password_of("ada", str(tmp_path / "none"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: f"typed after {prompt}")
    assert password_of("ada", None) == "typed after password for ada: "


def test_no_option_takes_a_password() -> None:
    result = CliRunner().invoke(app, ["app", "--output", "nowhere", "--user", "ada", "--password", "secret"])
    assert result.exit_code == 2 and "No such option" in result.output
    assert "secret" not in repr(Login("ada", "secret"))


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("plant.example", False),
        ("localhost.example", False),
    ],
)
def test_only_loopback_is_this_machine_alone(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.fixture
def closed(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    blocks = build(None, (), Runs(archive.output))
    yield launch(blocks, "127.0.0.1", 0, Login("ada", "pass wörd"))
    blocks.close()


def test_without_the_password_there_is_nothing_to_see(closed: str, archive: Archive) -> None:
    page = httpx.get(closed)
    assert archive.record.run_id not in page.text and archive.folder.output not in page.text
    for path in ("config", "gradio_api/info"):
        assert httpx.get(closed + path).status_code == 401, path
    joined = httpx.post(closed + "gradio_api/queue/join", json={"data": [], "fn_index": 0, "session_hash": "x"})
    assert joined.status_code == 401
    assert httpx.post(closed + "gradio_api/upload", files={"files": b"x"}).status_code == 401
    for user, password in (("ada", "pass"), ("bo", "pass wörd"), ("", ""), ("ada", "")):
        assert httpx.post(closed + "login", data={"username": user, "password": password}).status_code >= 400
    with httpx.Client() as client:
        assert client.post(closed + "login", data={"username": "ada", "password": "pass wörd"}).is_success
        assert "la-counted" in client.get(closed + "config").text


def warned(host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **settings: str) -> str:
    """What the command says before it listens, which it does not do here."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    asked = []

    def refuse(blocks: object, host: str, port: int, login: Login | None) -> str:
        asked.append((host, login))
        raise OSError("not in a test")

    monkeypatch.setattr(command_module, "launch", refuse)
    assert app_command(AppSettings(None, settings.pop("output"), host=host, port=0, **settings)) == 2  # type: ignore[arg-type]
    assert asked[0][0] == host and (asked[0][1] is not None) == ("user" in settings)
    return " ".join(capsys.readouterr().err.split())


def test_listening_beyond_this_machine_without_a_password_is_warned_of(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = warned("0.0.0.0", monkeypatch, capsys, output=archive.output)
    assert "WARNING: no password. Whoever reaches 0.0.0.0 in the network sees every image" in said
    assert "WARNING" not in warned("127.0.0.1", monkeypatch, capsys, output=archive.output)
    monkeypatch.setenv(VARIABLE, "secret word")
    said = warned("0.0.0.0", monkeypatch, capsys, output=archive.output, user="ada")
    assert "WARNING" not in said and "secret" not in said


def test_the_app_wants_something_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app_command(AppSettings(None, None)) == 2
    assert "name a --bundle to inspect images with, an --output to browse, or both" in capsys.readouterr().err
    assert app_command(AppSettings(None, str(tmp_path), password_file="p")) == 2
    assert "--password-file is of a --user" in capsys.readouterr().err


@pytest.mark.parametrize("user", ["", " "])
def test_an_empty_user_does_not_open_the_app_to_all(
    archive: Archive, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_module, "launch", lambda *_: pytest.fail("it listens"))
    assert app_command(AppSettings(None, archive.output, host="0.0.0.0", port=0, user=user)) == 2
    assert "--user is empty" in capsys.readouterr().err
