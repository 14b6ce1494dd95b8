"""A command whose metrics are served while it works, if that was asked for. Whatever becomes of that, it works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.audit import exits

if TYPE_CHECKING:
    from jobs.monitoring.run_metrics import RunMetrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MonitorSettings:
    """Where a command's metrics are served; port None: nowhere. linger: seconds that they are served on when it has
    ended, so that a scrape finds the last figures and the exit code."""

    port: int | None = None
    host: str = "127.0.0.1"
    linger: float = 0.0

    @classmethod
    def taken(cls, settings: Mapping[str, Any]) -> tuple[MonitorSettings, dict[str, Any]]:
        """Those among the settings of a command, ``metrics_port`` and so on, and the others."""
        names = {f"metrics_{name}": name for name in ("port", "host", "linger")}
        ours = {names[option]: value for option, value in settings.items() if option in names}
        return cls(**ours), {option: value for option, value in settings.items() if option not in names}


def monitored(
    command: str,
    settings: MonitorSettings,
    began: float,
    work: Callable[[RunMetrics | None], int],
    said: Callable[[str], None],
) -> int:
    """The exit code of the work, which is given the metrics to fill, or None.

    began: when the command began, seconds since the epoch. said: told if they cannot be served: a port that is taken is
    no reason to leave a night's images unseen.
    """
    if settings.port is None:
        return work(None)
    from jobs.monitoring.endpoint import serving  # these bring the client of Prometheus, which no other start waits for
    from jobs.monitoring.run_metrics import RunMetrics

    metrics = RunMetrics(command, began)
    with ExitStack() as serves:
        try:
            address = serves.enter_context(serving(metrics, settings.host, settings.port))
        except (OSError, OverflowError) as error:
            said(f"no metrics are served: {settings.host}:{settings.port}: {error}")
            return work(metrics)
        _log.info("metrics are served", extra={"address": address})
        code = work(metrics)
        metrics.ended(code)
        if code != exits.INTERRUPTED:  # whoever interrupts does not wait
            time.sleep(settings.linger)
        return code
