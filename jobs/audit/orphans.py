"""Worker processes that must not outlive their Ray.

A worker whose raylet goes away ends by Ray's own exit handler, which was seen to wait for a lock for ever: the actor
stayed, with a gigabyte of models, after the run had ended well. No Python runs in it by then, so the kernel ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from functools import cache

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent (of a worker, the raylet) ends. Linux only; else nothing."""
    _ask(os.getpid())


@cache
def _ask(pid: int) -> None:  # once for each process, forked ones too: they do not inherit it
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
