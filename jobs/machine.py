"""What there is for us on this machine, or in this container of it.

(joblib knows the CPUs too, and takes a second to import, which every worker would pay.)
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

# Where a container sees its own limits (cgroup v2): "200000 100000", microseconds of CPU in a period, or "max 100000"
# for none; bytes of memory, or "max".
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
CPU_INFO = Path("/proc/cpuinfo")


def cores() -> int:
    """CPUs that this process may use: those it may run on, or the container's whole ones if they are fewer."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _limits(CPU_MAX)
    return max(1, min(allowed, quota[0] // quota[1])) if len(quota) == 2 else allowed


def memory() -> int:
    """Bytes of memory: the machine's, or the container's if they are fewer."""
    return min([psutil.virtual_memory().total, *_limits(MEMORY_MAX)])


def cpu_name() -> str:
    """The CPU's own name, such as "AMD EPYC 9B14"; the kind of machine where there is none to be read."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _limits(path: Path) -> list[int]:
    """The numbers of a file of a cgroup; none where there is no limit, no such file, or a cgroup of another kind."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
