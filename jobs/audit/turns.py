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

from jobs.machine import cores

_IPC_CREAT, _IPC_EXCL, _SEM_UNDO, _SETVAL, _EINTR = 0o1000, 0o2000, 0x1000, 16, 4
# One semaphore for a user and a number of cores: audits that share a node share its cores, and one that is given
# another number does not find the semaphore of the old one. The first byte is "l".
_KEY = 0x6C000000


class _Operation(ctypes.Structure):
    _fields_ = (("number", ctypes.c_ushort), ("change", ctypes.c_short), ("flags", ctypes.c_short))


# Longer than any turn: whoever waits so long goes on without, or a process that was stopped in its turn, or killed
# between making the semaphore and setting it, would hold up every audit of the node.
PATIENCE = 60


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


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
    count = cores()
    key = _KEY + (count % 0x1000) * 0x1000 + os.getuid() % 0x1000
    created = libc.semget(key, 1, _IPC_CREAT | _IPC_EXCL | 0o600)
    if created >= 0:
        libc.semctl(created, 0, _SETVAL, ctypes.c_int(count))
        return int(created)
    found = libc.semget(key, 1, 0o600)
    return int(found) if found >= 0 else None


def _change(semaphore: int, by: int) -> bool:
    operation, patience = _Operation(0, by, _SEM_UNDO), _Time(PATIENCE, 0)
    while _libc().semtimedop(semaphore, ctypes.byref(operation), ctypes.c_size_t(1), ctypes.byref(patience)) != 0:
        if ctypes.get_errno() != _EINTR:
            return False  # it was removed, the wait was too long, or the system refuses: go on without
    return True


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
