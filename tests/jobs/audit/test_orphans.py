"""A worker does not stay when its raylet is gone, even one in which nothing runs that could end it."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

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
    _, left = psutil.wait_procs([orphan], timeout=5)
    alive = [one for one in left if one.status() != psutil.STATUS_ZOMBIE]  # nobody may be there to reap it
    for one in alive:
        one.kill()
    assert bool(alive) is not asked
