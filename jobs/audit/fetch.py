"""The bytes of one image: allowed, capped, retried where waiting helps, and every failure typed."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass

from jobs.access import AllowList, NotAllowed
from jobs.storage import StorageAccessError, error_name, filesystem, is_credentials_error, is_local, path_of, scheme_of

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.2
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "503", "429"}
_SERVER = {"InternalError", "ServiceUnavailable", "500", "502", "504"}
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}
_DENIED = {"AccessDenied", "Forbidden", "403", "AllAccessDisabled", "InvalidObjectState"}
_TIMEOUT = {"RequestTimeout", "ReadTimeoutError", "ConnectTimeoutError", "TimeoutError", "FSTimeoutError"}
_CUT = {
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseStreamingError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "HTTPClientError",
    "ServerDisconnectedError",
    "ConnectionResetError",
    "ClientOSError",
    "EndpointConnectionError",
}
PASSING = frozenset({"throttled", "timeout", "connection_cut", "server_error"})


class FetchError(Exception):
    """An image whose bytes could not be had. code: one word; attempts: how often they were asked for."""

    def __init__(self, code: str, message: str, attempts: int):
        super().__init__(message)
        self.code, self.message, self.attempts = code, message, attempts


@dataclass(frozen=True)
class Fetched:
    """The bytes of an object, and how often they were asked for."""

    data: bytes
    attempts: int


def fetch(uri: str, allowed: AllowList, max_bytes: int, version: str | None = None) -> Fetched:
    """Read one object, on S3 its version if one is named; errors that can pass are retried, with jittered waits.

    Raises FetchError for an error of this object, StorageAccessError if our credentials are refused.
    """
    try:
        target = allowed.resolve(uri)
    except NotAllowed as error:
        raise FetchError("not_allowed", str(error), 0) from error
    for attempt in range(1, ATTEMPTS + 1):
        try:
            data = _read(target, max_bytes + 1, version)
        except Exception as error:
            if is_credentials_error(error):
                raise StorageAccessError(
                    f"{uri}: credentials refused ({error_name(error)}); renew them and run again"
                ) from error
            code = classify(error)
            if code not in PASSING or attempt == ATTEMPTS:
                raise FetchError(code, f"{error_name(error)}: {error}"[:300], attempt) from error
            time.sleep(random.uniform(0, FIRST_WAIT_SECONDS * 2**attempt))
            continue
        if len(data) > max_bytes:
            raise FetchError("too_many_bytes", f"larger than the cap of {max_bytes:,} bytes", attempt)
        return Fetched(data, attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def classify(error: BaseException) -> str:
    """One word for what a storage said. What is not known here is ``fetch_failed``, and is not retried."""
    name = error_name(error)
    classes = {cls.__name__ for cls in type(error).__mro__} | {name}
    status = getattr(error, "status", None)  # of an HTTP response, as aiohttp raises it
    if isinstance(status, int):
        name = str(status)
    if isinstance(error, FileNotFoundError) or name in _MISSING:
        return "missing_object"
    if isinstance(error, PermissionError) or name in _DENIED:
        return "access_denied"
    if name in _THROTTLED:
        return "throttled"
    if name in _SERVER:
        return "server_error"
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or classes & _TIMEOUT:
        return "timeout"
    if isinstance(error, ConnectionError) or classes & _CUT:
        return "connection_cut"
    if isinstance(error, IsADirectoryError):
        return "missing_object"
    return "fetch_failed"


def _read(uri: str, count: int, version: str | None = None) -> bytes:
    if is_local(uri):
        with open(path_of(uri), "rb") as file:
            # Asked for the whole cap, Python maps so much for every file, which costs as much as reading it.
            size = os.fstat(file.fileno()).st_size  # zero for a pipe, and on some file systems that do not know it
            return file.read(min(count, size + 1) if size else count)
    try:
        chosen = {"version_id": version} if version and scheme_of(uri) in ("s3", "s3a") else {}
        return bytes(filesystem(uri, retrying=False).cat_file(path_of(uri), start=0, end=count, **chosen))
    except Exception as error:
        if error_name(error) in ("InvalidRange", "416"):  # a range of an empty object cannot be satisfied
            return b""
        raise
