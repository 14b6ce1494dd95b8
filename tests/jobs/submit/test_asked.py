"""What may be submitted, and which of two commands are at the same run."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jobs.audit.exits import USAGE, AuditError
from jobs.audit.grace import grace_seconds
from jobs.audit.record import RunFolder
from jobs.cli import app
from jobs.submit.asked import Asked, asked

ROOT = Path(__file__).resolve().parents[3]
MUST = ("--manifest", "s3://plant/m.csv", "--bundle", "s3://plant/b")


def parsed(*words: str) -> Asked:
    root = typer.main.get_command(app).make_context("line-audit", ["submit", "audit"])
    return asked(root, words)


def test_the_target_is_the_folder_of_the_run() -> None:
    folder = RunFolder("/plant/audit", "2026-11-24", "canary")
    night = parsed("audit", *MUST, "--output", "/plant/audit/", "--run-date", "2026-11-24", "--name", "canary")
    again = parsed("retry-failed", "--run", f"{folder.uri}/")
    assert night.target == again.target == folder.uri
    assert night.stem.startswith("audit-2026-11-24-canary-")
    assert again.stem == f"retry-failed-{night.stem.removeprefix('audit-')}"
    assert night.words[:3] == ("audit", "--manifest", "s3://plant/m.csv")


def test_runs_are_told_apart_by_output_name_and_date() -> None:
    one = ("audit", *MUST, "--output", "s3://plant/audit", "--run-date", "2026-11-24")
    others = [(*one, "--name", "canary"), (*one[:-1], "2026-11-25"), (*one[:-3], "s3://other/audit", *one[-2:])]
    stems = {parsed(*words).stem for words in (one, *others)}
    assert len(stems) == 4
    assert parsed(*one, "--price", "3").stem in stems
    assert parsed(*one[:-2]).target == f"s3://plant/audit/runs/{date.today().isoformat()}/audit"


def test_a_dry_run_holds_no_run() -> None:
    dry = parsed("audit", *MUST, "--output", "s3://plant/audit", "--dry-run")
    assert (dry.target, dry.stem[:8]) == (None, "dry-run-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", "--bundle", "b"), "commands that run on a cluster are audit, retry-failed"),
        (("submit", "audit"), "commands that run on a cluster are"),
        (("audit", *MUST, "--output", "audit"), "--output audit: a submitted job stands in a folder that Ray removes"),
        (("retry-failed", "--run", "audit/runs/2026-11-24/audit"), "--run audit/runs/2026-11-24/audit: a submitted"),
    ],
)
def test_what_cannot_be_submitted(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(AuditError, match=said) as raised:
        parsed(*words)
    assert raised.value.code == USAGE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audit", "--manifest", "m"], "Missing option"),
        (["audit", *MUST, "--output", "/a", "--limit", "none"], "limit"),
        (["audit", "--manifest", "s3://key:word@plant/m.csv"], "credentials in an address"),
        ([], "--attach"),
        (["--attach", "x", "audit", *MUST, "--output", "/a"], "--attach"),
        (["--attach", "x", "--no-wait"], "--no-wait"),
        (["--exclude", "x", "audit", *MUST, "--output", "/a"], "--working-dir"),
    ],
)
def test_a_wrong_command_line_asks_no_cluster(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["submit", "--address", "http://127.0.0.1:9", *words])
    assert done.exit_code == USAGE
    assert said in done.output


def test_help_is_that_of_the_command() -> None:
    done = CliRunner().invoke(app, ["submit", "audit", "--help"])
    assert (done.exit_code, "--shard-rows" in done.output) == (0, True)


def test_the_command_line_waits_for_no_library() -> None:
    late = {"ray", "torch", "duckdb", "pyarrow", "aiohttp"}
    code = f"import sys, jobs.cli; sys.exit(repr({late} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stderr.strip() == "set()"


def test_a_submitted_audit_ends_before_ray_kills_it() -> None:
    submitted = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    assert grace_seconds({}) == 20
    assert grace_seconds(submitted) == 2  # of Ray's 3
    assert grace_seconds(submitted | {"RAY_JOB_STOP_WAIT_TIME_S": "30"}) == 20
    assert grace_seconds({"RAY_JOB_STOP_WAIT_TIME_S": "30"}) == 20
