"""``line-audit submit`` against a dashboard that is not Ray's: what is sent, and what comes of every end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from jobs.audit import exits
from jobs.submit.asked import Asked
from jobs.submit.command import submit_command
from jobs.submit.follow import Pace
from jobs.submit.settings import Settings
from tests.jobs.submit.dashboard import Fake, serving

ROOT = Path(__file__).resolve().parents[3]
PACE = Pace(poll=0.02, silence=5.0, patience=0.2, drain=2.0, stopping=2.0)
RUN = "s3://plant/audit/runs/2026-11-24/audit"
ASKED = Asked(("audit", "--output", "s3://plant/audit"), RUN, "audit-2026-11-24-1a")
JOB = "audit-2026-11-24-1a-1"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # the address that is given is the one that counts
    before = signal.getsignal(signal.SIGTERM)
    with serving(Fake()) as server:
        yield server
    signal.signal(signal.SIGTERM, before)


def submit(fake: Fake, asked: Asked | None = ASKED, pace: Pace = PACE, **settings: Any) -> int:
    return submit_command(lambda: asked, Settings(fake.url, **settings), pace)


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0, "exit status 0"),
        *(({"status": "FAILED", "driver_exit_code": code}, code, f"exit status {code}") for code in (1, 2, 3, 4, 5, 6)),
        ({"status": "FAILED", "driver_exit_code": 130}, 130, "exit status 130"),
        ({"status": "STOPPED"}, 130, "it was stopped"),
        ({"status": "FAILED", "driver_exit_code": 137}, 1, "killed by SIGKILL"),
        ({"status": "FAILED", "driver_exit_code": -9}, 1, "killed by SIGKILL"),
        ({"status": "FAILED", "driver_exit_code": 139}, 1, "killed by SIGSEGV"),
        ({"status": "FAILED", "driver_exit_code": -15}, 130, "interrupted by SIGTERM"),
        ({"status": "FAILED", "driver_exit_code": 143}, 130, "interrupted by SIGTERM"),
        ({"status": "FAILED", "driver_exit_code": 127}, 2, "--working-dir"),
        ({"status": "FAILED", "driver_exit_code": 126}, 2, "could not be executed"),
        ({"status": "FAILED", "driver_exit_code": 77}, 1, "exit status 77"),
        ({"status": "FAILED", "message": "Job supervisor actor died: x\ny"}, 1, "Job supervisor actor died: x"),
    ],
)
def test_every_end_has_its_exit_code(
    fake: Fake, capfd: pytest.CaptureFixture[str], ends: dict[str, Any], code: int, said: str
) -> None:
    fake.finish = ends
    assert submit(fake) == code
    assert said in " ".join(capfd.readouterr().err.split())


def test_what_is_sent(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSSPEC_S3", '{"config_kwargs": {"read_timeout": 10}}')
    monkeypatch.setenv("LINE_AUDIT_WEBHOOK", "https://hooks.example/T0SECRET9")
    assert submit(fake, Asked(("audit", "--where", "line = 'L 3'"), "s3://a", "audit-1a"), env=("FSSPEC_S3",)) == 0
    [body] = fake.submitted
    assert body["submission_id"] == "audit-1a-1"
    assert body["entrypoint"] == """line-audit audit --where 'line = '"'"'L 3'"'"''"""
    assert body["runtime_env"] == {
        "env_vars": {
            "RAY_JOB_STOP_WAIT_TIME_S": "30",
            "FSSPEC_S3": '{"config_kwargs": {"read_timeout": 10}}',
        }
    }
    assert body["metadata"]["line_audit_target"] == "s3://a"
    # Ray starts a job that asks for nothing on the head, whatever CPUs that has.
    assert {name for name in body if name.startswith("entrypoint_")} <= {"entrypoint_num_cpus", "entrypoint_num_gpus"}
    assert not any(body.get(name) for name in ("entrypoint_num_cpus", "entrypoint_num_gpus"))
    assert "T0SECRET9" not in json.dumps(fake.submitted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LINE_AUDIT_WEBHOOK", "https://hooks.example/x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("aws_session_token", "x"),
        ("LINE_AUDIT_PASSWORD", "x"),
        ("FSSPEC_S3", '{"key": "AK", "secret": "S"}'),
        ("ENDPOINT", "https://user:word@host/"),
        ("NOT_SET_AT_ALL", None),
    ],
)
def test_secrets_do_not_travel(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv(name, value)
    assert submit(fake, env=(name,)) == exits.USAGE
    said = capfd.readouterr().err
    assert name in said
    assert value is None or len(value) == 1 or value not in said
    assert fake.submitted == []


def test_a_checkout_travels_without_keys_and_models(fake: Fake, tmp_path: Path) -> None:
    files = ["jobs/__main__.py", "night.yaml", "big/a.bin", ".env", "models/b.pth", "keys/a.pem", ".git/x", "out/x.png"]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_text(file)
    (tmp_path / ".gitignore").write_text("/out/\n")
    assert submit(fake, working_dir=str(tmp_path), exclude=("big/",)) == 0
    [package] = fake.packages.values()
    names = {name for name in zipfile.ZipFile(io.BytesIO(package)).namelist() if not name.endswith("/")}
    assert names == {"jobs/__main__.py", "night.yaml", ".gitignore"}
    assert fake.submitted[0]["entrypoint"].startswith("python -m jobs audit ")
    assert fake.submitted[0]["runtime_env"]["working_dir"].startswith("gcs://")


def test_a_folder_that_is_too_large_is_refused_before_anything_is_read(
    fake: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scans").mkdir()
    with (tmp_path / "scans" / "a.tif").open("wb") as file:
        file.truncate(101 * 2**20)  # sparse
    (tmp_path / "notes.txt").write_text("x")
    assert submit(fake, working_dir=str(tmp_path)) == exits.USAGE
    said = " ".join(capfd.readouterr().err.split())
    assert "101.0 MiB are more than the 100.0 MiB" in said and "Largest: scans (101.0 MiB)" in said
    assert (fake.packages, fake.submitted) == ({}, [])
    assert submit(fake, working_dir=str(tmp_path), exclude=("scans/",)) == 0
    assert submit(fake, working_dir=str(tmp_path / "none")) == exits.USAGE


def test_a_connection_that_is_cut_repeats_and_loses_no_line(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [f"line {i} of the log, with ü" for i in range(40)]
    fake.log = "\n".join([*lines, "the end of it"])
    fake.cuts, fake.finish = [1, 100, 333, 334], None
    fake.on_tail = lambda: fake.end(JOB, status="FAILED", driver_exit_code=3) if fake.tails == 5 else None
    assert submit(fake) == 3
    shown = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("line", "the end"))]
    assert shown == [*lines, "the end of it"]
    assert fake.tails == 5


def test_a_connection_that_has_gone_silent_is_made_again(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.finish, fake.log = None, "first\n"

    def tail() -> None:
        if fake.tails == 3:
            fake.log += "second\n"
            fake.end(JOB, status="SUCCEEDED", driver_exit_code=0)

    fake.on_tail = tail
    assert submit(fake, pace=Pace(poll=0.02, silence=0.1, patience=5, drain=2.0)) == 0
    shown = capfd.readouterr().err.splitlines()
    assert [line for line in shown if line in ("first", "second")] == ["first", "second"]


def test_a_cluster_that_is_gone(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.finish = None
    fake.on_tail = lambda: setattr(fake, "down", True)
    assert submit(fake) == exits.FAILED
    said = capfd.readouterr().err
    assert said.count("trying again") == 1
    assert f"--attach {JOB}" in said


def test_a_dashboard_that_comes_back_is_no_end(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.finish, fake.cuts = None, [0, 0, 0]

    def tail() -> None:
        fake.down = fake.tails == 1
        if fake.tails == 3:
            fake.end(JOB, status="FAILED", driver_exit_code=3)

    fake.on_tail = tail
    assert submit(fake, pace=Pace(poll=0.05, patience=30, drain=2.0)) == 3
    assert "connected again" in capfd.readouterr().err


def test_a_head_that_has_forgotten_the_job(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.finish = None
    fake.on_tail = fake.jobs.clear
    fake.cuts = [0]
    assert submit(fake) == exits.FAILED
    assert "does not know job" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_job_and_waits_for_its_end(
    fake: Fake, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    fake.finish = None
    fake.on_tail = lambda: os.kill(os.getpid(), number)

    def stop(job_id: str) -> None:
        fake.log += "interrupted; the same command resumes the run\n"
        fake.end(job_id, status="STOPPED")

    fake.on_stop = stop
    assert submit(fake) == exits.INTERRUPTED
    assert fake.stopped == [JOB]
    said = capfd.readouterr().err
    assert "interrupted; the same command" in said and "--detach" in said


def test_a_job_that_does_not_stop_is_left_after_a_while(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.finish = None
    fake.on_tail = lambda: os.kill(os.getpid(), signal.SIGINT)
    fake.on_stop = lambda job_id: None
    assert submit(fake, pace=Pace(poll=0.02, stopping=0.1)) == exits.INTERRUPTED
    assert "was asked to stop and has not" in capfd.readouterr().err


def test_a_second_signal_ends_the_command_at_once(
    fake: Fake, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        fake.end(JOB, status="STOPPED")

    monkeypatch.setattr("jobs.submit.follow.os._exit", leave)
    fake.finish = None
    fake.on_tail = lambda: os.kill(os.getpid(), signal.SIGINT)
    fake.on_stop = lambda job_id: os.kill(os.getpid(), signal.SIGINT)
    submit(fake)
    assert left == [exits.INTERRUPTED]
    assert f"job {JOB} may be running" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("detach", [True, False])
def test_a_signal_while_the_job_is_sent(fake: Fake, capfd: pytest.CaptureFixture[str], detach: bool) -> None:
    def sent(body: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    fake.on_submit, fake.finish = sent, None  # type: ignore[assignment]
    assert submit(fake, detach=detach) == exits.INTERRUPTED
    assert fake.stopped == ([] if detach else [JOB])
    assert JOB in capfd.readouterr().err


def test_a_job_that_ends_before_it_is_stopped_keeps_its_code(fake: Fake) -> None:
    fake.finish = None
    fake.on_tail = lambda: os.kill(os.getpid(), signal.SIGINT)
    fake.on_stop = lambda job_id: fake.end(job_id, status="FAILED", driver_exit_code=3)
    assert submit(fake) == 3


@pytest.mark.parametrize("detached", [True, False])
def test_detached_and_attached_jobs_are_left_running(
    fake: Fake, capfd: pytest.CaptureFixture[str], detached: bool
) -> None:
    fake.finish = None
    fake.on_tail = lambda: os.kill(os.getpid(), signal.SIGTERM)
    if detached:
        assert submit(fake, detach=True) == exits.INTERRUPTED
    else:
        fake.add(JOB)
        assert submit(fake, None, attach=JOB) == exits.INTERRUPTED
    assert (fake.stopped, fake.jobs[JOB]["status"]) == ([], "RUNNING")
    assert f"--attach {JOB}" in capfd.readouterr().err


def test_a_run_that_is_worked_on_is_not_submitted_again(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.add("retry-failed-7", metadata={"line_audit_target": RUN})
    fake.add("other", metadata={"line_audit_target": "s3://plant/audit/runs/2026-11-25/audit"})
    fake.log = "of the other one\n"
    assert submit(fake) == exits.LOCKED
    assert "--attach retry-failed-7" in capfd.readouterr().err
    fake.on_tail = lambda: fake.end("retry-failed-7", status="FAILED", driver_exit_code=3)
    assert submit(fake, or_attach=True) == 3
    assert "of the other one" in capfd.readouterr().err
    assert fake.submitted == []
    assert submit(fake, wait=False) == 0  # it has ended
    assert capfd.readouterr().out == f"{JOB}\n"
    assert submit(fake) == 0 and fake.submitted[-1]["submission_id"] == JOB[:-1] + "2"


def test_of_two_that_submit_at_once_one_is_told_so(fake: Fake) -> None:
    def other(body: dict[str, Any]) -> None:
        if not fake.jobs:
            fake.add(body["submission_id"], metadata=body["metadata"])

    fake.on_submit = other  # type: ignore[assignment]
    assert submit(fake) == exits.LOCKED
    assert fake.submitted == []


def test_a_submission_whose_answer_is_lost_has_arrived(fake: Fake) -> None:
    def lost(body: dict[str, Any]) -> web.Response:
        fake.add(body["submission_id"], status="FAILED", driver_exit_code=3)
        return web.Response(status=504, text="Gateway Timeout")

    fake.on_submit = lost
    assert submit(fake) == 3


def test_a_cluster_that_wants_a_token(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.token = "the-right-one"
    assert submit(fake) == exits.NO_ACCESS
    said = " ".join(capfd.readouterr().err.split())
    assert "asks for a token (401): set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH" in said
    assert fake.submitted == []


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("none", "RAY_AUTH_MODE=token, but there is no token for"),
        ("wrong", "refuses the token (403) of RAY_AUTH_TOKEN_PATH=wrong: set RAY_AUTH_MODE=token"),
    ],
)
def test_a_token_that_is_not_there_or_wrong(fake: Fake, tmp_path: Path, token: str, said: str) -> None:
    """In a process of its own: Ray reads the token once."""
    fake.token = "the-right-one"
    (tmp_path / "wrong").write_text("the-wrong-one")
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "submit", "--address", fake.url, "--attach", "x"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == exits.NO_ACCESS, done.stderr
    told = " ".join(done.stderr.split())
    assert said in told and "the-wrong-one" not in told


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
