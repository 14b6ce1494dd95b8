"""The bytes of one image: allowed, capped, retried where waiting helps, and every failure typed."""

from __future__ import annotations

import asyncio
import os
import random
import re
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from jobs.access import AllowList, NotAllowed
from jobs.audit.errors import OVERLOADED, PASSING, classify, refusal
from jobs.audit.pace import Pace
from jobs.storage import filesystem
from jobs.storage_errors import StorageAccessError, error_name
from jobs.uris import is_local, is_s3, path_of, scheme_of
from manifests.secrets import redacted

# Of an image whose storage is throttled more often: what it refuses now it gives in a minute.
ATTEMPTS, THROTTLED_ATTEMPTS = 5, 8
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 20.0
# Of one answer from first to last byte. The client's own time limit is for silence, and a body may come in drops.
READ_SECONDS = 300.0
PIECE_BYTES = 2**20
SILENCE_SECONDS = 60.0  # of a web server; as the S3 client's own
_PACE = Pace()
# Where Linux says which file a descriptor is of; other systems check the last name only.
_OPENED = Path("/proc/self/fd")
_ETAG = re.compile(r"[!#-~]+")


class FetchError(Exception):
    """An image whose bytes could not be had. code: one word; attempts: how often they were asked for."""

    def __init__(self, code: str, message: str, attempts: int):
        self.code, self.message, self.attempts = code, redacted(message), attempts
        super().__init__(self.message)


@dataclass(frozen=True)
class Fetched:
    """The bytes of an object, and how often they were asked for."""

    data: bytes
    attempts: int


def fetch(
    uri: str,
    allowed: AllowList,
    max_bytes: int,
    version: str | None = None,
    etag: str | None = None,
    pace: Pace | None = None,
) -> Fetched:
    """Read one object; errors that can pass are retried, with exponential waits in full jitter.

    On S3 its version if one is named, else the object only if it still has the ETag, if that is named. Elsewhere
    neither means anything. pace: this process's, unless the request shall not wait for others.

    Raises FetchError for an error of this object, StorageAccessError if credentials, bucket or region are refused.
    """
    try:
        target = allowed.resolve(uri)
    except NotAllowed as error:
        raise FetchError("not_allowed", str(error), 0) from error
    conditions = _conditions(version, etag) if is_s3(target) else {}
    for attempt in range(1, THROTTLED_ATTEMPTS + 1):
        try:
            data = _at_pace(pace or _PACE, target, max_bytes + 1, conditions)
        except NotAllowed as error:
            raise FetchError("not_allowed", str(error), attempt) from error
        except Exception as error:
            if (said := refusal(error)) is not None:
                raise StorageAccessError(f"{uri}: {said}") from None
            code = classify(error)
            last = THROTTLED_ATTEMPTS if code == "throttled" else ATTEMPTS
            if code not in PASSING or attempt >= last:
                raise FetchError(code, _told(code, error), attempt) from error
            time.sleep(random.uniform(0, min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)))
            continue
        if len(data) > max_bytes:
            raise FetchError("too_many_bytes", f"larger than the cap of {max_bytes:,} bytes", attempt)
        return Fetched(data, attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _told(code: str, error: Exception) -> str:
    if code == "object_changed":
        return "overwritten since the manifest was made: its ETag is another one; make the manifest anew"
    return redacted(f"{error_name(error)}: {error}")[:300]


def last_answer() -> float:
    """When a storage last answered this process, be it with a refusal; on the clock of time.monotonic()."""
    return _PACE.answered


def _at_pace(pace: Pace, uri: str, count: int, conditions: dict[str, str]) -> bytes:
    with pace.request() as began:
        try:
            data = _read(uri, count, conditions)
        except Exception as error:
            code = classify(error)
            if code in OVERLOADED:
                pace.overloaded(began)
            if code not in PASSING:
                pace.heard()
            raise
        pace.good()
        return data


def _read(uri: str, count: int, conditions: dict[str, str]) -> bytes:
    if is_local(uri):
        return _read_local(path_of(uri), count)
    fs, path = filesystem(uri, retrying=False), path_of(uri)
    try:
        if is_s3(uri):
            return bytes(sync(fs.loop, _get, fs, path, count, conditions, timeout=READ_SECONDS))
        if scheme_of(uri) in ("http", "https"):
            return bytes(sync(fs.loop, _get_http, fs, path, count, timeout=READ_SECONDS))
        return bytes(fs.cat_file(path, start=0, end=count))
    except Exception as error:
        if error_name(error) in ("InvalidRange", "416"):  # a range of an empty object cannot be satisfied
            return b""
        raise


async def _get(fs: Any, path: str, count: int, conditions: dict[str, str]) -> bytes:
    # s3fs's own cat_file knows no conditions; with them an object that was overwritten costs no further request.
    bucket, key, _ = fs.split_path(path)
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes=0-{count - 1}", **conditions)
    try:
        return await _capped(answer["Body"].read, count)
    finally:
        answer["Body"].close()


async def _get_http(fs: Any, url: str, count: int) -> bytes:
    # fsspec's own cat_file reads a body whole, and a server need not heed a range, nor how its answer shall be packed.
    options = dict(fs.kwargs)
    asked = {"Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
    options["headers"] = {**options.get("headers", {}), **asked}
    session = await fs.set_session()
    async with asyncio.timeout(SILENCE_SECONDS) as limit, session.get(fs.encode_url(url), **options) as answer:

        async def read(size: int) -> bytes:
            limit.reschedule(asyncio.get_running_loop().time() + SILENCE_SECONDS)
            return bytes(await answer.content.read(size))

        if answer.status == 416:  # a range of an empty object cannot be satisfied
            return b""
        answer.raise_for_status()
        if answer.status not in (200, 206):
            raise OSError(f"status {answer.status}, and no image")
        return await _capped(read, count)


async def _capped(read: Callable[[int], Awaitable[bytes]], count: int) -> bytes:
    """So many bytes of a body, unpacked; what comes after them is not waited for."""
    data = bytearray()
    while len(data) < count and (piece := await read(min(count - len(data), PIECE_BYTES))):
        data += piece
    return bytes(data[:count])


def _conditions(version: str | None, etag: str | None) -> dict[str, str]:
    if version:
        return {"VersionId": version}
    plain = (etag or "").strip().strip('"')
    if not plain:
        return {}
    if not _ETAG.fullmatch(plain):
        raise FetchError("object_changed", f"no object has an ETag such as the manifest names, {plain[:100]!r}", 0)
    return {"IfMatch": f'"{plain}"'}


def _read_local(path: str, count: int) -> bytes:
    # A link put in the place of what was checked is not followed, and a pipe is not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(f"{path} is a folder")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is no file but a pipe, a socket or a device")
        if _OPENED.is_dir() and os.readlink(_OPENED / str(descriptor)) != path:
            raise NotAllowed(f"{path} was moved, or a folder above it replaced, while it was opened")
        with open(descriptor, "rb", closefd=False) as file:
            # Asked for the whole cap, Python maps so much for every file, which costs as much as reading it.
            size = found.st_size  # zero on some file systems that do not know it
            return file.read(min(count, size + 1) if size else count)
    finally:
        os.close(descriptor)
