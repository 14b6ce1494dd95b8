"""Turns on the CPUs of a node, as many at a time as it has cores.

More processes want the cores than there are, and the kernel switches between them every three milliseconds: whoever
gets a core finds the cache full of somebody else's data. Two extractors, two decoders and a scorer on two cores did
0.9 of what each does alone, and all of it taking turns of fifty milliseconds; in an audit turns gain 2 to 5 %.

A turn is a semaphore of System V, because the kernel gives back the turns of a process that is killed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_IPC_CREAT, _IPC_EXCL, _SEM_UNDO, _SETVAL, _EINTR = 0o1000, 0o2000, 0x1000, 16, 4
# One semaphore for a user and a number of cores: audits that share a node share its cores, and one that is given
# another number does not find the semaphore of the old one. The first byte is "l".
_KEY = 0x6C000000


class _Operation(ctypes.Structure):
    _fields_ = (("number", ctypes.c_ushort), ("change", ctypes.c_short), ("flags", ctypes.c_short))


@contextmanager
def turn() -> Iterator[None]:
    """Hold a core. Never wait for another process inside; where there are no such semaphores, nothing is waited for."""
    semaphore = _semaphore(os.getpid())
    if semaphore is None:
        yield
        return
    held = _change(semaphore, -1)
    try:
        yield
    finally:
        if held:
            _change(semaphore, 1)


@cache
def _semaphore(pid: int) -> int | None:
    """The identifier of the node's semaphore, created if need be; None where the system has none."""
    if not sys.platform.startswith("linux"):
        return None
    libc = _libc()
    cores = os.cpu_count() or 1
    key = _KEY + (cores % 0x1000) * 0x1000 + os.getuid() % 0x1000
    created = libc.semget(key, 1, _IPC_CREAT | _IPC_EXCL | 0o600)
    if created >= 0:
        libc.semctl(created, 0, _SETVAL, ctypes.c_int(cores))
        return int(created)
    found = libc.semget(key, 1, 0o600)
    return int(found) if found >= 0 else None


def _change(semaphore: int, by: int) -> bool:
    operation = _Operation(0, by, _SEM_UNDO)
    while _libc().semop(semaphore, ctypes.byref(operation), 1) != 0:
        if ctypes.get_errno() != _EINTR:
            return False  # it was removed, or the system refuses: go on without
    return True


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
