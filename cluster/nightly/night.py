"""One night: start the audit or find it started, wait until it has ended, and leave nothing running."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from cluster.nightly.api import KubernetesApi, NoAnswer
from cluster.nightly.dashboard import ray_token
from cluster.nightly.outcome import exit_code, recorded_exit_code
from cluster.nightly.rayjob import Owner, has_ended, night_job, state
from jobs.audit import exits
from jobs.audit.exits import FAILED, USAGE, AuditError
from jobs.storage_errors import StorageAccessError
from jobs.terminal import note, say

POLL_SECONDS = 10.0
# How long the API may be silent, as while its nodes are replaced, before the audit is given up.
PATIENCE_SECONDS = 600.0
# How long after its deadline a RayJob must have ended; if it has not, its operator does not work.
GRACE_SECONDS = 600.0


@dataclass(frozen=True)
class Clock:
    """Time and waiting, which tests shorten. now: seconds, never going back."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Night:
    """What to audit. template: name of the RayJob to take as an example. config: of the audit; None if unknown."""

    template: str
    night: date
    owner: Owner | None = None
    config: Path | None = None


def audit_night(api: KubernetesApi, night: Night, poll: float = POLL_SECONDS, clock: Clock | None = None) -> int:
    """Audit a night and return the audit's exit code. Raises AuditError.

    A RayJob that an earlier pod of the same Job left running, as one whose node died, is followed and no second one
    started. If anything else ends this than the end of the audit (SIGTERM, its deadline, an API that is gone), the
    RayJob is deleted; the next start resumes the run.
    """
    clock = clock or Clock()
    previous, name = signal.signal(signal.SIGTERM, _interrupt), None
    try:
        job = _left_running(api, night.owner)
        if job is None:
            job = _made(api, night)
            name = job["metadata"]["name"]
            job = api.create(job)
            say(f"RayJob {name} audits {night.night}: {job['spec']['entrypoint']}")
        name = str(job["metadata"]["name"])
        job = _ended(api, job, poll, clock)
        since = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        return exit_code(job, ray_token(), lambda: _recorded(night, since), clock.wait)
    except KeyboardInterrupt:
        _remove(api, name)
        say("interrupted: nothing of this night is left running, and the next start resumes the run")
        return exits.INTERRUPTED
    except AuditError:
        _remove(api, name)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _left_running(api: KubernetesApi, owner: Owner | None) -> dict[str, Any] | None:
    if owner is None:
        return None
    running = [job for job in api.find(owner.labels) if not has_ended(job)]
    if running:
        say(f"RayJob {running[0]['metadata']['name']} is running already: following it")
    return running[0] if running else None


def _made(api: KubernetesApi, night: Night) -> dict[str, Any]:
    template = api.get(night.template)
    if template is None:
        raise AuditError(USAGE, f"no RayJob {night.template} to take as a template in this namespace")
    return night_job(template, night.night, night.owner)


def _ended(api: KubernetesApi, job: dict[str, Any], poll: float, clock: Clock) -> dict[str, Any]:
    """The RayJob when it has ended. Raises AuditError if it is deleted meanwhile, or never ends."""
    name, told = job["metadata"]["name"], ""
    start = heard = clock.now()
    limit = job["spec"].get("activeDeadlineSeconds")
    while not has_ended(job):
        if limit is not None and clock.now() - start > limit + GRACE_SECONDS:
            raise AuditError(FAILED, f"RayJob {name} is long past its deadline of {limit} s: does its operator run?")
        clock.wait(poll)
        try:
            found = api.get(name)
        except AuditError as error:
            # Also a refusal: a role that is being replaced is no reason to end a night at once.
            if clock.now() - heard > PATIENCE_SECONDS:
                raise NoAnswer(f"{error.message}; for {PATIENCE_SECONDS:.0f} s already") from error
            note(error.message)
            continue
        if found is None:
            raise AuditError(FAILED, f"RayJob {name} was deleted before its audit had ended; a retry resumes it")
        job, heard = found, clock.now()
        if told != state(job):
            told = state(job)
            say(f"RayJob {name}: {told}")
    return job


def _recorded(night: Night, since: datetime) -> int | None:
    try:
        return recorded_exit_code(night.config, night.night, since)
    except (StorageAccessError, OSError, ValueError) as error:
        note(f"run.json cannot be read: {error}")
        return None


def _remove(api: KubernetesApi, name: str | None) -> None:
    if name is None:
        return
    # The kubelet says it once, and kills after its grace period; whoever says it again does not help.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        api.delete(name)
    except AuditError as error:
        note(f"RayJob {name} could not be deleted: {error.message}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
