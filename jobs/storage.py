"""Files and folders in whatever storage fsspec knows, by URI: a path, file://, s3:// and others.

Writes are whole or not at all: a temporary name and a rename on a local disk, one PUT or multipart completion on S3.
"""

from __future__ import annotations

import fcntl
import mimetypes
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec import AbstractFileSystem

from jobs.storage_errors import NoStorage, access, error_name
from jobs.uris import is_local, is_s3, path_of, scheme_of

# An object store answers slowly under load; these bound one request, the callers' retries bound the whole. fsspec's own
# settings come before them, such as FSSPEC_S3='{"config_kwargs": {"read_timeout": 10}}' in the environment.
_S3_OPTIONS: dict[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 64,
        "retries": {"mode": "standard", "max_attempts": 5},
    },
}
_S3_ONCE: dict[str, Any] = {
    **_S3_OPTIONS,
    "config_kwargs": {**_S3_OPTIONS["config_kwargs"], "retries": {"mode": "standard", "total_max_attempts": 1}},
}
# What local folders that are needed for a while are called, and how old one is that may have been left behind.
SCRATCH, SCRATCH_SECONDS = f"line-audit-scratch-{socket.gethostname()}-", 5.0
_TEMPORARY = re.compile(r"\.(?P<stem>.+)-[0-9a-f]{32}\.tmp")


def filesystem(uri: str, *, retrying: bool = True) -> AbstractFileSystem:
    """The file system of a URI. Its instances are cached by fsspec, so this is cheap.

    retrying: False for a caller with retries of its own, which those of the clients would multiply. Raises NoStorage
    naming the scheme if nothing installed can read it.
    """
    scheme = scheme_of(uri)
    options: dict[str, Any] = {}
    if is_s3(uri):
        options = _s3_options(_S3_OPTIONS if retrying else _S3_ONCE)
    elif scheme in ("http", "https"):
        options = {"allow_redirects": False}
    try:
        fs = fsspec.filesystem(scheme, **options)
    except Exception as error:  # a scheme that wants more than a name says so with whatever its constructor raises
        raise NoStorage(f"{uri}: no storage for scheme {scheme!r} ({type(error).__name__}: {error})") from error
    if is_s3(uri) and not retrying:
        fs.retries = 1
    return fs


def _s3_options(ours: Mapping[str, Any]) -> dict[str, Any]:
    # All but the number of retries, which callers count on; a copy, because botocore writes into it.
    set_outside = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    retries = dict(ours["config_kwargs"]["retries"])
    return {**ours, "config_kwargs": {**ours["config_kwargs"], **set_outside, "retries": retries}}


def exists(uri: str) -> bool:
    """Whether the object is there."""
    with access(uri):
        fs = filesystem(uri)
        fs.invalidate_cache()
        return bool(fs.exists(path_of(uri)))


def is_file(uri: str) -> bool:
    """Whether an object of that name is there; a folder or prefix is none."""
    with access(uri):
        fs = filesystem(uri)
        fs.invalidate_cache()
        return bool(fs.isfile(path_of(uri)))


def read_bytes(uri: str) -> bytes:
    """The whole object. Raises FileNotFoundError, StorageAccessError."""
    with access(uri):
        return bytes(filesystem(uri).cat_file(path_of(uri)))


@contextmanager
def reading(uri: str) -> Iterator[BinaryIO]:
    """The object as a file to read in pieces. Raises FileNotFoundError, StorageAccessError, also while it is read."""
    with access(uri), filesystem(uri).open(path_of(uri)) as file:
        yield file


def write_bytes(uri: str, data: bytes) -> None:
    """Write an object whole or not at all, replacing what was there."""
    with access(uri):
        fs, path = filesystem(uri), path_of(uri)
        if not is_local(uri):
            fs.pipe_file(path, data, **_content_type(uri))
            return
        with _whole(path) as temporary, open(temporary, "wb") as file:
            file.write(data)


def _content_type(uri: str) -> dict[str, str]:
    """What an object store is told of an object: a browser shows a page or a picture only if it says that it is one."""
    kind, _ = mimetypes.guess_type(path_of(uri))
    return {"ContentType": kind} if kind is not None and is_s3(uri) else {}


def upload(local: Path, uri: str) -> None:
    """Copy a local file to a URI, whole or not at all, replacing what was there."""
    with access(uri):
        fs, path = filesystem(uri), path_of(uri)
        if not is_local(uri):
            fs.put_file(str(local), path)
            return
        with _whole(path) as temporary:
            shutil.copyfile(local, temporary)


def copy(source: str, target: str) -> None:
    """Copy an object within its storage, whole or not at all, replacing what was there. Raises FileNotFoundError."""
    with access(source):
        if is_local(source):
            with _whole(path_of(target)) as temporary:
                shutil.copyfile(path_of(source), temporary)
        else:
            filesystem(source).cp_file(path_of(source), path_of(target))


def download(uri: str, local: Path) -> None:
    """Copy an object to a local file. Raises FileNotFoundError, StorageAccessError."""
    with access(uri):
        filesystem(uri).get_file(path_of(uri), str(local))


def create(uri: str, data: bytes) -> bool:
    """Create an object only if there is none of that name; False if there is. Decided by the storage, not by us."""
    with access(uri):
        fs, path = filesystem(uri), path_of(uri)
        try:
            if is_local(uri):
                _link(path, data)  # with its content from the first moment: an empty lock would look abandoned
            else:
                fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if error_name(error) in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                return False
            raise
        return True


def delete(uri: str) -> None:
    """Delete an object; nothing happens if it is not there."""
    with access(uri):
        try:
            filesystem(uri).rm_file(path_of(uri))
        except FileNotFoundError:
            return


def prune(uri: str, levels: int) -> None:
    """Remove a local folder and those above it, so many in all, as far as they are empty; elsewhere there are none."""
    path = path_of(uri)
    for _ in range(levels if is_local(uri) else 0):
        try:
            os.rmdir(path)
        except OSError:  # not empty, not ours, a mount point: it stays, and what is above it too
            return
        path = os.path.dirname(path)


def sweep(uri: str, wanted: Callable[[str], bool] = lambda stem: True, but: str | None = None) -> None:
    """Remove what killed writers left in a local folder and below it; elsewhere they leave nothing that has a name.

    wanted: whether the temporary files of a name, given up to its first dot, may go. Call it for names only that nobody
    else is writing now. but: name of folders that are left out.
    """
    with access(uri):
        for folder, folders, files in os.walk(path_of(uri)) if is_local(uri) else ():
            folders[:] = [name for name in folders if name != but]
            for name in files:
                found = _TEMPORARY.fullmatch(name)
                if found and wanted(found["stem"]):
                    Path(folder, name).unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A local folder that is gone afterwards; if this process is killed, when another one makes its first one."""
    _sweep_scratch()
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder, _locked(folder, fcntl.LOCK_EX):
        yield Path(folder)


@contextmanager
def _locked(folder: str, how: int) -> Iterator[None]:
    """A lock that ends with the process, whatever ends it; of one machine, as some file systems have it. Raises
    BlockingIOError if it is not to wait for another one who has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


@cache
def _sweep_scratch() -> None:
    """Remove the folders of processes that were killed: a commit of ten million rows leaves ten gigabytes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError):  # another user's, gone meanwhile, or in use
            if time.time() - folder.stat().st_mtime > SCRATCH_SECONDS:  # a new one is not locked yet
                with _locked(str(folder), fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _whole(path: str) -> Iterator[str]:
    """A temporary file that becomes ``path`` when it is whole, and is gone if it never is."""
    temporary = _temporary(path)
    try:
        yield temporary
        _publish(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _publish(temporary: str, path: str) -> None:
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _link(path: str, data: bytes) -> None:
    temporary = _temporary(path)
    try:
        Path(temporary).write_bytes(data)
        os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _temporary(path: str) -> str:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    # No suffix of the real name: a glob for *.parquet must not see it.
    return os.path.join(folder, f".{name.partition('.')[0]}-{uuid.uuid4().hex}.tmp")
