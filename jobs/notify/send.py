"""Delivery of a message: by HTTP POST, or as a file. Whether it arrives changes nothing of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx

from jobs.notify.message import Message
from jobs.storage import write_bytes
from jobs.uris import scheme_of
from manifests.secrets import without_secrets

WAITS = (1.0, 4.0)  # seconds, before the second attempt and the third
PASSING = (408, 425, 429, 500, 502, 503, 504)


def deliver(
    message: Message,
    targets: Sequence[str],
    said: Callable[[str], None],
    *,
    timeout: float = 10.0,
    waits: Sequence[float] | None = None,
) -> None:
    """Send a message to each target: an address of HTTP, or the path or s3:// URI of a file, which is replaced.

    said: told of each target that it did not reach, which is named without what may be secret. timeout: seconds for one
    attempt. waits: before each further attempt at a webhook that is away or overloaded, None for WAITS.
    """
    data = (message.model_dump_json(indent=2) + "\n").encode()
    for target in targets:
        try:
            if scheme_of(target) in ("http", "https"):
                _post(target, data, timeout, WAITS if waits is None else waits)
            else:
                write_bytes(target, data)
        except Exception as error:  # told, and nothing more: the run has ended as it has
            said(f"the notification did not reach {shown(target)}: {_why(error, target)}")


def shown(target: str) -> str:
    """A target as it may be written down: of a webhook the host only."""
    if scheme_of(target) in ("http", "https"):
        try:
            return f"the webhook at {urlsplit(target).hostname}"
        except ValueError:
            return "a webhook whose address is none"
    return without_secrets(target)


def _post(url: str, data: bytes, timeout: float, waits: Sequence[float]) -> None:
    for wait in (*waits, None):
        try:
            answer = _answer(url, data, timeout)
        except (httpx.TransportError, TimeoutError):
            if wait is None:
                raise
        else:
            if answer.status_code < 300:
                return
            if wait is None or answer.status_code not in PASSING:
                raise RuntimeError(f"it answered {answer.status_code} {answer.reason_phrase}")
        time.sleep(wait)


def _answer(url: str, data: bytes, seconds: float) -> httpx.Response:
    """The head of what a webhook answers; its body, which may have no end, is not read.

    In a thread that is left behind: the client bounds the time between two bytes, and not that of all of them. Raises
    TimeoutError, and what the client raises.
    """
    found: list[httpx.Response | Exception] = []

    def ask() -> None:
        headers = {"content-type": "application/json"}
        try:
            with (
                httpx.Client(timeout=seconds, follow_redirects=False) as client,
                client.stream("POST", url, content=data, headers=headers) as answer,
            ):
                found.append(answer)
        except Exception as error:  # raised below
            found.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    if not found:
        raise TimeoutError(f"it did not answer within {seconds:g} seconds")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _why(error: Exception, target: str) -> str:
    """What went wrong, without the address: its path may be a secret."""
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        return type(error).__name__
    return str(error).replace(target, shown(target)) or type(error).__name__
