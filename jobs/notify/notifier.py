"""When a command tells others how it ended, and whom."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from jobs.audit import exits
from jobs.audit.record import RunFolder, RunRecord
from manifests.secrets import redacted

if TYPE_CHECKING:
    from jobs.notify.message import Message

WEBHOOK = "LINE_AUDIT_WEBHOOK"  # in the environment, because the addresses of webhooks are secrets
Wanted = Literal["always", "problems", "never"]


class Notifier:
    """Tells of the end of one command, once.

    targets: as ``deliver`` takes them; the webhook of the environment is one more. on: ``problems`` for what somebody
    should act upon only. said: told of what was not delivered. folder, which others may set: of the run that the
    command works on, as soon as it is known.
    """

    def __init__(self, command: str, targets: Sequence[str], on: Wanted, said: Callable[[str], None]):
        webhook = os.environ.get(WEBHOOK, "").strip()
        self.command, self.on, self.said = command, on, said
        self.targets = [*dict.fromkeys([*targets, *([webhook] if webhook else [])])]
        self.folder: RunFolder | None = None
        self.told, self.turn = False, threading.Lock()

    def finished(self, record: RunRecord, code: int) -> None:
        """The command has published results. If it never came to work on a run, that was committed long ago."""
        folder = self.folder
        if folder is not None:
            self._tell(lambda message: message.finished(self.command, folder, record, code))

    def failed(self, code: int, reason: str) -> None:
        """The command has failed. That another process holds the run is no end of the run."""
        if code != exits.LOCKED:
            self._tell(lambda message: message.ended(self.command, "failed", code, reason, self.folder))

    def interrupted(self, seconds: float) -> None:
        """The command was interrupted; so many seconds are left until it is killed."""
        reason = exits.MEANING[exits.INTERRUPTED]
        self._tell(
            lambda message: message.ended(self.command, "interrupted", exits.INTERRUPTED, reason, self.folder),
            timeout=seconds,
            waits=(),
        )

    def nothing_new(self, reason: str) -> None:
        """There was nothing to audit."""
        self._tell(lambda message: message.ended(self.command, "nothing_new", exits.COMMITTED, reason, self.folder))

    def _tell(self, make: Callable[[ModuleType], Message], **limits: Any) -> None:
        """make: of the module with the messages. limits: of ``deliver``."""
        with self.turn:  # the thread that ends a process that hangs may come in between
            if self.told or not self.targets or self.on == "never":
                return
            self.told = True
        try:
            from jobs.notify import message, send  # here: a client of HTTP and statistics, which no start waits for

            made = make(message)
            if self.on == "always" or made.is_problem:
                send.deliver(made, self.targets, self.said, **limits)
        except Exception as error:  # the run has ended as it has, whoever hears of it
            self.said(f"no notification was sent: {redacted(f'{type(error).__name__}: {error}')}")
