"""``submit``: a command is sent to a cluster and followed there; it ends with the exit code that it had there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.commands import ended
from jobs.submit.asked import Asked
from jobs.submit.dashboard import Dashboard
from jobs.submit.follow import Follower, Pace
from jobs.submit.screen import Screen
from jobs.submit.settings import Settings
from jobs.submit.submission import Submission
from jobs.terminal import complain, note, say


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
    settings.check(command=asked is not None)
    submission = None if asked is None else Submission(asked, settings, pace)
    dashboard = Dashboard(settings.address.rstrip("/"))
    try:
        job_id = submission.send(dashboard) if submission is not None else settings.attach or ""
        if not settings.wait:
            say(job_id)
            return exits.COMMITTED
        ours = submission is not None and submission.sent is not None  # not one that is followed instead
        return _followed(dashboard, job_id, ours and not settings.detach, pace)
    except KeyboardInterrupt:
        if submission is not None and submission.sent is not None:
            if settings.detach:
                note(f"job {submission.sent} may be running")
            else:
                dashboard.stop(submission.sent)
                note(f"job {submission.sent} was asked to stop")
        raise


def _followed(dashboard: Dashboard, job_id: str, stops: bool, pace: Pace) -> int:
    with Screen() as screen:
        follower = Follower(dashboard, job_id, screen, stops=stops, pace=pace)
        try:
            return asyncio.run(follower.code())
        except AuditError:
            note(f"job {job_id} may be running; {follower.again()}")
            raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
