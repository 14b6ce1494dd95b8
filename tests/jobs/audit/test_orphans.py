"""A worker does not stay when its raylet is gone, even one in which nothing runs that could end it."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from jobs.audit.child import _serve
from jobs.audit.extract import Extract
from jobs.audit.load import load_shard
from jobs.audit.registry import Registry
from jobs.audit.score import Scorer
from jobs.audit.write import write_shard

PR_GET_PDEATHSIG = 2
CHILD = """
import signal, time
from jobs.audit.orphans import end_with_parent
signal.signal(signal.SIGHUP, signal.SIG_IGN)
{asked}
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"ready\\n"
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux kills the children of a dead process")
@pytest.mark.parametrize("asked", [True, False])
def test_a_process_ends_with_its_parent_if_it_asked_for_it(asked: bool) -> None:
    child = CHILD.format(asked="end_with_parent()" if asked else "")
    with subprocess.Popen([sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs([orphan], timeout=5 if asked else 1)
    alive = [one for one in left if one.status() != psutil.STATUS_ZOMBIE]  # nobody may be there to reap it
    for one in alive:
        one.kill()
    assert bool(alive) is not asked


def _asks(stage: Callable[..., Any], count: int, result: Any) -> None:
    found = ctypes.c_int()
    try:
        with suppress(AttributeError, TypeError):  # it is given nothing to work on
            stage(*[None] * count)
    finally:
        ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(found))
        result.put(found.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux kills the children of a dead process")
@pytest.mark.parametrize(
    ("stage", "arguments"), [(Registry, 3), (Scorer, 1), (Extract, 2), (load_shard, 3), (write_shard, 3), (_serve, 2)]
)
def test_every_stage_asks_for_it(stage: Callable[..., Any], arguments: int) -> None:
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    process = context.Process(target=_asks, args=(stage, arguments, result))
    process.start()
    assert result.get(timeout=60) == signal.SIGKILL
    process.join()
