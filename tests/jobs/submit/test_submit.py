"""What ``line-audit submit`` sends, and what comes of every end."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from jobs.audit import exits
from jobs.submit.asked import Asked
from tests.jobs.submit.conftest import JOB, RUN, submit
from tests.jobs.submit.dashboard import Fake


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
