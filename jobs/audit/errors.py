"""What a storage said of one image, in one word, and what it says when it refuses us as a whole."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from jobs.storage_errors import error_name, is_credentials_error

_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "503", "429"}
_SERVER = {"InternalError", "ServiceUnavailable", "TemporaryRedirect", "500", "502", "504"}
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}
_DENIED = {"AccessDenied", "Forbidden", "401", "403", "407", "AllAccessDisabled", "InvalidObjectState"}
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
    "ProxyConnectionError",
    "SSLError",
}
_CHANGED = {"PreconditionFailed", "412"}
# Of a disk, or of this process, that cannot read anything now; of one damaged file too, which the retries find out.
_DISK = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EMFILE,
    errno.ENFILE,
    errno.EREMOTEIO,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}
# Said of a bucket, a region, an account or a clock, never of one object.
_OF_ALL = {
    "NoSuchBucket",
    "NoSuchAccessPoint",
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "AccountProblem",
    "NotSignedUp",
    "RequestTimeTooSkewed",
}
PASSING = frozenset({"throttled", "timeout", "connection_cut", "server_error"})
OVERLOADED = frozenset({"throttled", "timeout", "server_error"})


def refusal(error: BaseException) -> str | None:
    """What to say of an error that concerns the storage as a whole, with the remedy; None of any other."""
    name = error_name(error)
    if is_credentials_error(error):
        return f"credentials refused ({name}); renew them and run again"
    if name in _OF_ALL:
        return f"the storage refuses every image ({name}); check bucket, region, account and clock, and run again"
    return None


def classify(error: BaseException) -> str:
    """One word for what a storage said. What is not known here is ``fetch_failed``, and is not retried."""
    name, status = error_name(error), _status(error)
    classes = {cls.__name__ for cls in type(error).__mro__} | {name}
    if isinstance(getattr(error, "status", None), int):  # of an HTTP response, as aiohttp raises it
        name = str(status)
    if isinstance(error, FileNotFoundError | IsADirectoryError) or name in _MISSING:
        return "missing_object"
    if isinstance(error, PermissionError) or name in _DENIED or name.startswith("KMS."):
        return "access_denied"
    if name in _CHANGED:
        return "object_changed"
    if name in _THROTTLED:
        return "throttled"
    if name in _SERVER:
        return "server_error"
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or classes & _TIMEOUT:
        return "timeout"
    if isinstance(error, ConnectionError) or classes & _CUT:
        return "connection_cut"
    # s3fs gives EIO to what it does not know, but then the storage's own name is there.
    if isinstance(error, OSError) and error.errno in _DISK and name == type(error).__name__:
        return "connection_cut"
    return _of_status(status)


def _of_status(status: int) -> str:
    """For a storage whose own names are not S3's."""
    if status == 429:
        return "throttled"
    if status >= 500:
        return "server_error"
    return "access_denied" if status in (401, 403) else "fetch_failed"


def _status(error: BaseException | None) -> int:
    """The HTTP status of an answer, through the causes of an error; 0 if there was none."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for status in (found, getattr(error, "status", None)):
            if isinstance(status, int):
                return status
        error = error.__cause__ or error.__context__
    return 0
