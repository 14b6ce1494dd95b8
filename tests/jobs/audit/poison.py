"""A decoder for workers of tests: two magic words kill or hang the process that decodes them."""

from __future__ import annotations

import os
import signal
import time

from anomaly_core.preprocess import DEFAULT, Decoded, Limits, Preprocessing, decode

KILLER, HANGER = b"KILL THE PROCESS", b"HANG THE PROCESS"


def poisoned(data: bytes, limits: Limits | None = None, preprocessing: Preprocessing = DEFAULT) -> Decoded:
    if data == KILLER:
        os.kill(os.getpid(), signal.SIGKILL)
    if data == HANGER:
        time.sleep(3600)
    return decode(data, limits, preprocessing)


def install() -> None:
    """Run in every worker of a Ray session before its first task."""
    import jobs.audit.load as module

    module.decode = poisoned
