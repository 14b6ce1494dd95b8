"""JSON logs: one object a line, with run_id and shard, of the driver and its workers. Imports little, so that it can be
turned on before anything else of a command is imported.

Events are records of the loggers below ``jobs``, with what they have to say as ``extra``. Without JSON nobody hears
them, except for what people are told in other words.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from manifests.secrets import redacted

OURS = "jobs"
# What an event may have besides its message, and no more: whatever else somebody puts on a record stays off the line.
FIELDS = (
    "command", "version", "rows", "rows_to_do", "rows_earlier", "shards", "shards_to_do", "start", "seconds", "images",
    "images_per_second", "attempt", "decisions", "failed", "failed_by_code", "scored", "reason", "error_code",
    "exit_code", "place", "requests", "in_a_row", "deviation", "verdict", "results", "report", "node_seconds", "cost",
    "thresholds", "recovered", "extractors", "state", "address",
)  # fmt: skip
_shard: ContextVar[int | None] = ContextVar("shard", default=None)


@dataclass(frozen=True)
class LogSettings:
    """What the workers of a run write on their lines."""

    run_id: str


@dataclass
class _Process:
    """Of this process: whether it writes JSON, and of which run."""

    structured: bool = False
    run_id: str | None = None


_process = _Process()


class JsonFormatter(logging.Formatter):
    """A record as one JSON object without line breaks, and without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        event = {name: vars(record)[name] for name in FIELDS if vars(record).get(name) is not None}
        if record.exc_info:
            event["traceback"] = redacted(self.formatException(record.exc_info))
        return line(
            record.getMessage(), record.levelname, record.name, at=record.created, shard=_shard.get(), event=event
        )


def line(
    message: str,
    level: str,
    logger: str,
    *,
    at: float | None = None,
    shard: int | None = None,
    event: dict[str, Any] | None = None,
    node: str | None = None,
    pid: int | None = None,
) -> str:
    """A line of the log. at: seconds since the epoch, None for now. node, pid: of the process that speaks, if not this
    one."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    told = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "logger": logger,
        "message": redacted(message),
        "run_id": _process.run_id,
        "shard": shard,
        "node": node or socket.gethostname(),
        "pid": pid or os.getpid(),
    }
    return json.dumps(told | {name: _plain(value) for name, value in (event or {}).items()}, allow_nan=False)


def structured() -> bool:
    """Whether this process writes JSON lines instead of text."""
    return _process.structured


def about_run(run_id: str) -> None:
    """Name the run that this process works on; it stands on every line from now on."""
    _process.run_id = run_id


def about_shard(shard: int) -> None:
    """Name the shard that this thread works on; it stands on its lines from now on."""
    _shard.set(shard)


def for_workers() -> LogSettings | None:
    """What the workers of this driver shall write; None for text."""
    return LogSettings(_process.run_id or "") if _process.structured else None


def log_as(settings: LogSettings | None, shard: int | None = None) -> None:
    """In a worker, when work for a run begins: write its log as the driver says. Cheap when it was said before."""
    if shard is not None:
        about_shard(shard)
    if settings is None:
        return
    about_run(settings.run_id)
    if not _process.structured:
        _process.structured = True
        hear(sys.stderr)


def hear(stream: TextIO) -> None:
    """Have all loggers write JSON to ``stream``: ours from INFO on, others from WARNING on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(logging.INFO)
    logging.captureWarnings(True)


def announce(message: str, file: TextIO | None = None) -> None:
    """Tell people what a process is about: a line of text (``file``: on standard output, unless given), or an event."""
    if _process.structured:
        logging.getLogger(OURS).warning(message)
    else:
        print(f"line-audit: {message}", file=file or sys.stdout, flush=True)


def begin() -> None:
    """Make this process, a driver, write JSON lines only. Call it before Ray is imported."""
    from jobs.monitoring import streams

    # Ray drops lines that are like those of other workers but for numbers, and JSON lines are. Read at its import.
    os.environ["RAY_DEDUP_LOGS"] = "0"
    os.environ["RAY_COLOR_PREFIX"] = "0"
    _process.structured = True
    streams.redirect()
    hear(sys.stderr)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, float):
        return round(value, 4) if abs(value) < float("inf") else str(value)  # NaN too; neither is JSON
    return value
