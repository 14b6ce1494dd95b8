"""``line-audit exporter``: serves the metrics of an output until it is ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence

from jobs.audit import exits
from jobs.audit.config import NAME
from jobs.audit.exits import AuditError
from jobs.commands import ended
from jobs.monitoring.deadline import Deadline
from jobs.monitoring.endpoint import serving
from jobs.monitoring.exporter import Exporter, Site
from jobs.monitoring.nights import Reader
from jobs.storage import filesystem
from jobs.terminal import say
from jobs.uris import normal
from manifests.secrets import REFUSED, without_secrets


def exporter_command(
    output: str, names: Sequence[str], host: str, port: int, deadline: str, time_zone: str, max_cost: float | None
) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""

    def work() -> None:
        site = Site(Deadline.parse(deadline, time_zone), max_cost)
        wrong = [name for name in names if not NAME.fullmatch(name)]
        if wrong:
            raise AuditError(exits.USAGE, f"--name {wrong[0]}: only letters, digits, '_' and '-', at most 64")
        if without_secrets(output) != output:
            raise AuditError(exits.USAGE, f"--output: {REFUSED}")
        over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
        try:
            filesystem(output)
        except ValueError as error:
            raise AuditError(exits.USAGE, f"--output {error}") from error
        exporter = Exporter(Reader(normal(output), names), site)
        try:
            with exporter, serving(exporter, host, port) as address:
                say(f"metrics of {normal(output)}: {address}")
                over.wait()
        except (OSError, OverflowError) as error:
            raise AuditError(exits.USAGE, f"{host}:{port} cannot be listened on: {error}") from error

    return ended(work)
