"""A job as the cluster tells of it, and the exit code that its end is worth."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from jobs.audit import exits

Status = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
# What a shell says of a command that it cannot start.
_NOT_STARTED = {126: "could not be executed", 127: "was not found"}
_INTERRUPTING = (signal.SIGINT, signal.SIGTERM)
_BY_SIGNAL = 128  # and its number, as a shell says it


@dataclass(frozen=True)
class Job:
    """exit_code: of the command; None while it runs, and if it was stopped or its end was not seen.

    message: what Ray says of its state. target: what it works on, as it was submitted; None of a foreign job.
    """

    id: str
    status: Status
    exit_code: int | None = None
    message: str = ""
    target: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    def ending(self) -> tuple[int, str]:
        """The exit code of this ended job, one of the README's, and a sentence for people."""
        code = self.exit_code
        if self.status == "STOPPED":
            return exits.INTERRUPTED, "it was stopped; the same command resumes it"
        if self.status == "SUCCEEDED":
            return exits.COMMITTED, "it ended with exit status 0"
        if code is None:
            return exits.FAILED, f"its end was not seen: {self.message or 'Ray does not say why'}"
        if code in exits.MEANING:
            return code, f"it ended with exit status {code}"
        if code in _NOT_STARTED:
            return exits.USAGE, (
                f"its command {_NOT_STARTED[code]} on the head of the cluster: send a checkout with --working-dir, or "
                "have line-audit in the PATH there (an image with it, or its .venv activated before ray start)"
            )
        killed = -code if code < 0 else code - _BY_SIGNAL
        if killed in _INTERRUPTING:
            return exits.INTERRUPTED, f"it was interrupted by {_signal(killed)} before it could end by itself"
        if killed > 0:
            return exits.FAILED, f"it was killed by {_signal(killed)}, often for want of memory; a rerun resumes"
        return exits.FAILED, f"it ended with exit status {code}, which no command of line-audit has"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
