"""How a command is submitted and followed."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from jobs.audit import exits
from jobs.audit.exits import AuditError
from manifests.secrets import REFUSED, without_secrets


@dataclass(frozen=True)
class Settings:
    """The options of ``submit``, in the help's words."""

    address: str
    working_dir: str | None = None
    exclude: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    wait: bool = True
    detach: bool = False
    attach: str | None = None
    or_attach: bool = False

    def check(self, *, command: bool) -> None:
        """Raises AuditError for options that do not go together. command: whether there is one to submit."""
        parts = urlsplit(self.address)
        if without_secrets(self.address) != self.address:
            raise AuditError(exits.USAGE, f"--address {without_secrets(self.address)}: {REFUSED}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AuditError(
                exits.USAGE, f"--address {self.address}: give the dashboard of the cluster's head, as http://HOST:8265"
            )
        if command == (self.attach is not None):
            raise AuditError(exits.USAGE, "give a command to submit, such as audit with its options, or --attach JOB")
        if self.attach is not None and not self.wait:
            raise AuditError(exits.USAGE, "--no-wait: there is nothing to do for a job that is attached to")
        if self.exclude and self.working_dir is None:
            raise AuditError(exits.USAGE, "--exclude: nothing is sent without --working-dir")
