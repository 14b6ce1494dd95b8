"""``submit``: a command is sent to a cluster and followed there; it ends with the exit code that it had there."""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.grace import STOP_WAIT
from jobs.commands import ended
from jobs.submit.asked import Asked
from jobs.submit.dashboard import TARGET, Dashboard, Request, Starting, Taken
from jobs.submit.environment import travelling
from jobs.submit.follow import STOP_SECONDS, Follower, Pace
from jobs.submit.screen import Screen
from jobs.submit.working_dir import STAYS, check_folder
from jobs.terminal import complain, note, say
from manifests.secrets import REFUSED, without_secrets

_ATTEMPTS = 3  # others may submit at the same time


@dataclass(frozen=True)
class Settings:
    """How it is sent and followed: the options of the command, in the help's words."""

    address: str
    working_dir: str | None = None
    exclude: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    wait: bool = True
    detach: bool = False
    attach: str | None = None
    or_attach: bool = False


def submit_command(ask: Callable[[], Asked | None], settings: Settings, pace: Pace | None = None) -> int:
    """Submit what is asked, or follow ``settings.attach``; returns the exit code: the job's own, if it was followed.

    ask: for the command to submit; None if there is none.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return ended(lambda: _run(ask(), settings, pace or Pace()))
    except KeyboardInterrupt:  # before the job was followed
        complain("interrupted")
        return exits.INTERRUPTED


def _run(asked: Asked | None, settings: Settings, pace: Pace) -> int:
    _check(asked, settings)
    prepared = None if asked is None else _runtime_env(settings)
    dashboard = Dashboard(settings.address.rstrip("/"))
    sent: set[str] = set()
    try:
        if asked is None or prepared is None:
            job_id = settings.attach or ""
        else:
            job_id = _submitted(dashboard, asked, prepared, settings, sent, pace)
        if not settings.wait:
            say(job_id)
            return exits.COMMITTED
        return _followed(dashboard, job_id, asked is not None and not settings.detach, pace)
    except KeyboardInterrupt:
        for one in sent:
            if settings.detach:
                note(f"job {one} may be running")
            else:
                dashboard.stop(one)
                note(f"job {one} was asked to stop")
        raise


def _followed(dashboard: Dashboard, job_id: str, stops: bool, pace: Pace) -> int:
    with Screen() as screen:
        follower = Follower(dashboard, job_id, screen, stops=stops, pace=pace)
        try:
            return asyncio.run(follower.code())
        except AuditError:
            note(f"job {job_id} may be running; {follower.again()}")
            raise


def _check(asked: Asked | None, settings: Settings) -> None:
    parts = urlsplit(settings.address)
    if without_secrets(settings.address) != settings.address:
        raise AuditError(exits.USAGE, f"--address {without_secrets(settings.address)}: {REFUSED}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AuditError(
            exits.USAGE, f"--address {settings.address}: give the dashboard of the cluster's head, as http://HOST:8265"
        )
    if (asked is None) == (settings.attach is None):
        raise AuditError(exits.USAGE, "give a command to submit, such as audit with its options, or --attach JOB")
    if settings.attach is not None and not settings.wait:
        raise AuditError(exits.USAGE, "--no-wait: there is nothing to do for a job that is attached to")
    if settings.exclude and settings.working_dir is None:
        raise AuditError(exits.USAGE, "--exclude: nothing is sent without --working-dir")


def _runtime_env(settings: Settings) -> dict[str, Any]:
    """What the job is started with: see ``ray.runtime_env.RuntimeEnv``."""
    env: dict[str, Any] = {"env_vars": {STOP_WAIT: str(STOP_SECONDS), **travelling(settings.env, os.environ)}}
    if settings.working_dir is None:
        return env
    stays = [*STAYS, *settings.exclude]
    check_folder(settings.working_dir, stays)
    return env | {"working_dir": settings.working_dir, "excludes": stays}


def _submitted(
    dashboard: Dashboard,
    asked: Asked,
    runtime_env: dict[str, Any],
    settings: Settings,
    sent: set[str],
    pace: Pace,
) -> str:
    """The id of the job, or of the one that is at it already. sent: gets the id of what the cluster may have taken.

    No resources are asked for, so Ray starts the command on the head, whatever CPUs that has.
    """
    attempts, until = 0, time.monotonic() + pace.starting
    while attempts < _ATTEMPTS:
        jobs = dashboard.jobs()
        working = next((job for job in jobs if not job.ended and asked.target and job.target == asked.target), None)
        if working is not None and settings.or_attach:
            note(f"job {working.id} is at it; following that")
            return working.id
        if working is not None:
            raise AuditError(
                exits.LOCKED,
                f"job {working.id} of this cluster works on {asked.target}; --attach {working.id} follows it, and "
                "--or-attach would have done so",
            )
        taken = [job.id.removeprefix(f"{asked.stem}-") for job in jobs if job.id.startswith(f"{asked.stem}-")]
        number = max((int(one) for one in taken if one.isdecimal()), default=0) + 1
        request = Request(
            id=f"{asked.stem}-{number}",
            entrypoint=shlex.join([*_program(settings.working_dir), *asked.words]),
            runtime_env=runtime_env,
            metadata={
                "submitted_by": f"{getpass.getuser()}@{socket.gethostname()}",
                **({TARGET: asked.target} if asked.target else {}),
            },
        )
        sent.add(request.id)
        try:
            dashboard.submit(request)
        except Taken:
            sent.discard(request.id)
            attempts += 1
            continue
        except Starting as error:
            if time.monotonic() > until:
                raise
            note(f"{dashboard.address}: {error.reason}; trying again")
            time.sleep(pace.poll)
            continue
        note(f"submitted as job {request.id}")
        return request.id
    raise AuditError(exits.LOCKED, f"others submit jobs for {asked.target or asked.stem} all the time")


def _program(working_dir: str | None) -> tuple[str, ...]:
    """How the command line is called on the head: that of a checkout which travels, or the one that is installed."""
    if working_dir is not None and (Path(working_dir) / "jobs" / "__main__.py").is_file():
        return "python", "-m", "jobs"
    return ("line-audit",)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
