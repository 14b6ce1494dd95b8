"""Sending a command to a cluster, unless it is at the same run already."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.grace import STOP_WAIT
from jobs.submit.asked import Asked
from jobs.submit.dashboard import TARGET, Dashboard, Request, Starting, Taken
from jobs.submit.environment import travelling
from jobs.submit.follow import STOP_SECONDS, Pace
from jobs.submit.job import Job
from jobs.submit.settings import Settings
from jobs.submit.working_dir import STAYS, check_folder
from jobs.terminal import note

_ATTEMPTS = 3  # others may submit at the same time


class Submission:
    """What is asked, ready to be sent. sent: id of the job that the cluster may have taken.

    Raises AuditError for a folder or a variable that cannot travel.
    """

    def __init__(self, asked: Asked, settings: Settings, pace: Pace):
        self._asked, self._settings, self._pace = asked, settings, pace
        self._runtime_env = _runtime_env(settings)
        self.sent: str | None = None

    def send(self, dashboard: Dashboard) -> str:
        """The id of the job, or of the one that is at the same run, with ``or_attach``. Raises AuditError."""
        asked, attempts, until = self._asked, 0, time.monotonic() + self._pace.starting
        while attempts < _ATTEMPTS:
            jobs = dashboard.jobs()
            working = next((job for job in jobs if not job.ended and asked.target and job.target == asked.target), None)
            if working is not None:
                return self._instead(working)
            request = self._request(jobs)
            self.sent = request.id
            try:
                dashboard.submit(request)
            except Taken:
                self.sent = None
                attempts += 1
            except Starting as error:
                if time.monotonic() > until:
                    raise
                note(f"{dashboard.address}: {error.reason}; trying again")
                time.sleep(self._pace.poll)
            else:
                note(f"submitted as job {request.id}")
                return request.id
        raise AuditError(exits.LOCKED, f"others submit jobs for {asked.target or asked.stem} all the time")

    def _instead(self, working: Job) -> str:
        if self._settings.or_attach:
            note(f"job {working.id} is at it; following that")
            return working.id
        raise AuditError(
            exits.LOCKED,
            f"job {working.id} of this cluster works on {working.target}; --attach {working.id} follows it, and "
            "--or-attach would have done so",
        )

    def _request(self, jobs: Sequence[Job]) -> Request:
        """jobs: all of the cluster, whose ids are taken. No resources are asked for: so Ray starts the command on the
        head, whatever CPUs that has."""
        stem = f"{self._asked.stem}-"
        taken = [job.id.removeprefix(stem) for job in jobs if job.id.startswith(stem)]
        number = max((int(one) for one in taken if one.isdecimal()), default=0) + 1
        metadata = {"submitted_by": f"{getpass.getuser()}@{socket.gethostname()}"}
        if self._asked.target is not None:
            metadata[TARGET] = self._asked.target
        return Request(
            id=f"{stem}{number}",
            entrypoint=shlex.join([*_program(self._settings.working_dir), *self._asked.words]),
            runtime_env=self._runtime_env,
            metadata=metadata,
        )


def _runtime_env(settings: Settings) -> dict[str, Any]:
    """What the job is started with: see ``ray.runtime_env.RuntimeEnv``."""
    env: dict[str, Any] = {"env_vars": {STOP_WAIT: str(STOP_SECONDS), **travelling(settings.env, os.environ)}}
    if settings.working_dir is None:
        return env
    stays = [*STAYS, *settings.exclude]
    check_folder(settings.working_dir, stays)
    return env | {"working_dir": settings.working_dir, "excludes": stays}


def _program(working_dir: str | None) -> tuple[str, ...]:
    """How the command line is called on the head: that of a checkout which travels, or the one that is installed."""
    if working_dir is not None and (Path(working_dir) / "jobs" / "__main__.py").is_file():
        return "python", "-m", "jobs"
    return ("line-audit",)
