"""Clusters that are not there, want another token, or take no job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from jobs.audit import exits
from jobs.submit.command import submit_command
from jobs.submit.follow import Pace
from jobs.submit.settings import Settings
from tests.jobs.submit.conftest import ASKED, PACE, ROOT, submit
from tests.jobs.submit.dashboard import Fake


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "asks for a token (401): set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH"),
        ("none", "RAY_AUTH_MODE=token, but there is no token for"),
        ("wrong", "refuses the token (403) of RAY_AUTH_TOKEN_PATH=wrong: the cluster was started with another one"),
    ],
)
def test_a_token_that_is_not_there_or_wrong(fake: Fake, tmp_path: Path, token: str | None, said: str) -> None:
    """In a process of its own: Ray reads the token once."""
    fake.token = "the-right-one"
    (tmp_path / "wrong").write_text("the-wrong-one")
    given = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "submit", "--address", fake.url, "--attach", "x"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == exits.NO_ACCESS, done.stderr
    told = " ".join(done.stderr.split())
    assert said in told and "the-wrong-one" not in told
    assert fake.submitted == []


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("http://127.0.0.1:9", exits.FAILED, "(Connection refused)"),
        ("127.0.0.1:8265", exits.USAGE, "as http://HOST:8265"),
        ("ray://head:10001", exits.USAGE, "as http://HOST:8265"),
        ("http://user:word@head:8265", exits.USAGE, "credentials in an address"),
    ],
)
def test_addresses_without_a_cluster(capfd: pytest.CaptureFixture[str], address: str, code: int, said: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert submit_command(lambda: ASKED, Settings(address), PACE) == code
    signal.signal(signal.SIGTERM, before)
    told = " ".join(capfd.readouterr().err.split())
    assert said in told and ":word@" not in told


def test_what_answers_but_is_no_dashboard(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    assert submit_command(lambda: ASKED, Settings(f"{fake.url}/elsewhere"), PACE) == exits.USAGE
    assert "is no dashboard of a Ray cluster" in " ".join(capfd.readouterr().err.split())


def test_a_head_that_has_just_started_is_waited_for(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    def answer(body: dict[str, Any]) -> web.Response | None:
        nonlocal refusals
        refusals -= 1
        return None if refusals < 0 else web.Response(status=500, text="No available agent to submit job, try again.")

    fake.on_submit, refusals = answer, 3
    assert submit(fake) == 0
    assert capfd.readouterr().err.count("starts jobs yet; trying again") == 3
    refusals = 1000
    assert submit(fake, pace=Pace(poll=0.02, starting=0.1)) == exits.FAILED


def test_what_the_cluster_refuses_is_told(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.on_submit = lambda body: web.Response(status=500, text="Traceback\n  x\nOSError: no space left")
    assert submit(fake) == exits.FAILED
    assert "answers 500: OSError: no space left" in " ".join(capfd.readouterr().err.split())
