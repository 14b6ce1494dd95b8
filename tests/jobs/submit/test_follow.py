"""Following a job over a connection that breaks, and while a person wants it to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from jobs.audit import exits
from jobs.submit.follow import Pace
from tests.jobs.submit.conftest import JOB, RUN, submit
from tests.jobs.submit.dashboard import Fake


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
    fake.finish, fake.cuts = None, [0] * 1000

    def tail() -> None:
        fake.down = fake.unanswered == 0
        if not fake.down:
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


def once(number: signal.Signals, fake: Fake) -> Callable[[], None]:
    """A signal for this process when the log is asked for the first time; a second one would end it."""
    return lambda: os.kill(os.getpid(), number) if fake.tails == 1 else None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_job_and_waits_for_its_end(
    fake: Fake, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    fake.finish = None
    fake.on_tail = once(number, fake)

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
    fake.on_tail = once(signal.SIGINT, fake)
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
    fake.on_tail = once(signal.SIGINT, fake)
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
    fake.on_tail = once(signal.SIGINT, fake)
    fake.on_stop = lambda job_id: fake.end(job_id, status="FAILED", driver_exit_code=3)
    assert submit(fake) == 3


@pytest.mark.parametrize("how", ["detached", "attached", "or attached"])
def test_detached_and_attached_jobs_are_left_running(fake: Fake, capfd: pytest.CaptureFixture[str], how: str) -> None:
    fake.finish = None
    fake.on_tail = once(signal.SIGTERM, fake)
    if how == "detached":
        assert submit(fake, detach=True) == exits.INTERRUPTED
    elif how == "attached":
        fake.add(JOB)
        assert submit(fake, None, attach=JOB) == exits.INTERRUPTED
    else:  # somebody else submitted it
        fake.add(JOB, metadata={"line_audit_target": RUN})
        assert submit(fake, or_attach=True) == exits.INTERRUPTED
    assert (fake.stopped, fake.jobs[JOB]["status"]) == ([], "RUNNING")
    assert f"--attach {JOB}" in capfd.readouterr().err
