"""Real processes, really killed: what a rerun makes of it. Exit codes are those of the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray
from typer.testing import CliRunner

from jobs.audit import exits
from jobs.audit import run as module
from jobs.audit.run import Outcome, audit
from jobs.cli import app
from jobs.cluster_session import ray_session
from tests.jobs.audit.conftest import GOOD, ROWS, config
from tests.jobs.audit.tables import published, stable

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 240.0

pytestmark = pytest.mark.slow


def command(archive: Path, bundle: str, output: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "jobs", "audit", "--manifest", str(archive / "manifest.csv"), "--bundle", bundle),
        *("--output", str(output), "--run-date", "2026-01-02", "--shard-rows", "3", "--max-failed", "7"),
    ]


def start(archive: Path, bundle: str, output: Path, *options: str) -> subprocess.Popen[str]:
    # A session of its own, so that what is left of it can be ended by its group.
    return subprocess.Popen(
        [*command(archive, bundle, output), *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def shards(output: Path) -> dict[str, int]:
    folder = output / "runs" / "2026-01-02" / "audit" / "shards"
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.parquet")} if folder.exists() else {}


def wait_for_shards(process: subprocess.Popen[str], output: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(shards(output)) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no shards in time"
        time.sleep(0.02)


def refused(first: subprocess.Popen[str], archive: Path, bundle: str, output: Path) -> str:
    """What a second start of the same run says; the first one is stopped meanwhile, or it might be done before."""
    first.send_signal(signal.SIGSTOP)
    try:
        code, said = here(archive, bundle, output)
    finally:
        first.send_signal(signal.SIGCONT)
    assert code == exits.LOCKED, said
    return said


def here(archive: Path, bundle: str, output: Path, *options: str) -> tuple[int, str]:
    """Exit code and words of the command, in this process and on its Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda number, handler: None)  # or this process would keep the command's
        done = CliRunner().invoke(app, [*command(archive, bundle, output)[3:], *options])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.usefixtures("ray_cluster")
def test_a_night_that_is_terminated_and_stalls(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "2026-01-02" / "audit"
    process = start(archive, bundle, tmp_path)
    wait_for_shards(process, tmp_path, 1)
    assert f"pid {process.pid}" in refused(process, archive, bundle, tmp_path)
    begun = time.monotonic()
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 20  # three on a machine that does nothing else
    assert process.returncode == exits.INTERRUPTED, said
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["exit_code"]) == ("interrupted", exits.INTERRUPTED)

    process = start(archive, bundle, tmp_path, "--stall-timeout", "20")  # the models take ten to come on a busy machine
    wait_for_shards(process, tmp_path, len(shards(tmp_path)) + 1)
    said = stalled(process)
    assert process.returncode == exits.FAILED, said
    assert "error: nothing has moved for " in said
    assert "shards begun, load" in said
    assert "shards in hand: " in said
    assert "Traceback" not in said

    left = shards(tmp_path)
    assert 2 <= len(left) < 9
    assert list(tmp_path.glob("results/**/*")) == []
    code, said = here(archive, bundle, tmp_path)
    assert code == exits.COMMITTED, said
    assert f"{9 - len(left)} to do" in said
    assert f"{len(left)} shards were there from an earlier start" in said
    assert f"{ROWS} images: {GOOD} scored, 8 failed" in said
    assert f"to query: line-audit sql --output {tmp_path}" in said
    after = shards(tmp_path)
    assert {name: after[name] for name in left} == left
    assert json.loads((folder / "run.json").read_text())["starts"] == 3
    assert stable(published(tmp_path)) == stable(published(run[0]))


def stalled(process: subprocess.Popen[str]) -> str:
    """What an audit says whose scorers hang. None of its processes is left."""
    family = psutil.Process(process.pid).children(recursive=True)
    scorers = [one for one in family if one.cmdline()[:1] and one.cmdline()[0].startswith("ray::Scorer")]
    assert scorers
    for one in scorers:
        one.suspend()
    try:
        _, said = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        for one in scorers:
            one.resume()
        raise
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [one.cmdline() for one in alive] == []
    return " ".join(said.split())


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--max-failed", "many", "--name", "../up"], "--max-failed many"),
        (["--run-date", "yesterday", "--name", "../up"], "--name"),
        (["--bundle", "{folder}/nowhere"], "there is no bundle"),
        (["--manifest", "{folder}/none.csv"], "no such manifest"),
        (["--precision", "bfloat16"], "calibrated in float32"),
    ],
)
def test_wrong_arguments_exit_with_2(archive: Path, bundle: str, tmp_path: Path, extra: list[str], named: str) -> None:
    code, said = here(archive, bundle, tmp_path / "out", *(word.format(folder=tmp_path) for word in extra))
    assert code == exits.USAGE, said
    assert named in said
    assert not (tmp_path / "out").exists()


def test_the_process_itself_exits_with_2(archive: Path, bundle: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*command(archive, str(tmp_path / "nowhere"), tmp_path / "out")], cwd=ROOT, capture_output=True, timeout=120
    )
    assert (done.returncode, b"there is no bundle" in done.stderr) == (exits.USAGE, True), done.stderr


def test_dry_run_writes_nothing(archive: Path, bundle: str, tmp_path: Path) -> None:
    """In a process of its own, which has no Ray."""
    words = [*command(archive, bundle, tmp_path / "out"), "--dry-run"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 duplicate" in done.stdout
    assert "shards" in done.stdout and "images/s on 1 node with" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_audit_that_is_terminated_while_ray_starts_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own handler, which it puts in the place of ours, exits with the number of the signal."""
    codes = [signal.SIGTERM, 1]
    monkeypatch.setattr(ray, "init", lambda **_: sys.exit(codes.pop(0)))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(KeyboardInterrupt), ray_session():
        pass
    with pytest.raises(SystemExit), ray_session():
        pass


def test_whoever_lost_the_run_does_not_write_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, archive: Path, bundle: str, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "2026-01-02" / "audit"

    def slept(*_: object) -> None:
        """While this driver slept, another one took the run over and committed it; then it is terminated."""
        lock = json.loads((folder / "lock.json").read_text())
        (folder / "lock.json").write_text(json.dumps(lock | {"token": "another"}))
        (folder / "run.json").write_text("committed by another")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "work", slept)
    with pytest.raises(KeyboardInterrupt):
        audit(config(archive, bundle, tmp_path))
    assert (folder / "run.json").read_text() == "committed by another"
    assert json.loads((folder / "lock.json").read_text())["token"] == "another"


LOCKED_OUT = """
import sys, time
from jobs.audit import command, run
from jobs.storage_errors import StorageAccessError

command.STALLED_SECONDS = 0.5
run._abandon = lambda *_: time.sleep(60)  # the storage hangs

def work(*_):
    raise StorageAccessError("s3://line: no answer")

run.work = work
manifest, bundle, output = sys.argv[1:]
sys.exit(command.run_command({"manifest": manifest, "bundle": bundle, "output": output}))
"""


def test_a_run_whose_storage_hangs_ends_and_says_why(archive: Path, bundle: str, tmp_path: Path) -> None:
    words = [str(archive / "manifest.csv"), bundle, str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", LOCKED_OUT, *words], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == exits.NO_ACCESS, done.stderr
    assert "error: s3://line: no answer (and the run does not end by itself)" in " ".join(done.stderr.split())
