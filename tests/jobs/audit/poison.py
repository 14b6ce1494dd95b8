"""A decoder for workers of tests: magic words kill or hang the process that decodes them, or fail it."""

from __future__ import annotations

import os
import signal
import time

from anomaly_core.preprocess import DEFAULT, Decoded, Limits, Preprocessing, decode

KILLER, HANGER, STARVER, BUG = b"KILL THE PROCESS", b"HANG THE PROCESS", b"STARVE THE PROCESS", b"BUG IN THE PROCESS"


def poisoned(data: bytes, limits: Limits | None = None, preprocessing: Preprocessing = DEFAULT) -> Decoded:
    if data == KILLER:
        os.kill(os.getpid(), signal.SIGKILL)
    if data == HANGER:
        time.sleep(3600)
    if data == STARVER:
        raise MemoryError
    if data == BUG:
        raise KeyError("bug")
    return decode(data, limits, preprocessing)


def install() -> None:
    """Run in every worker of a Ray session before its first task."""
    import jobs.audit.load as module

    module.decode = poisoned
