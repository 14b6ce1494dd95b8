"""How many CPUs there are for us. (joblib knows it too, and takes a second to import, which every worker would pay.)"""

from __future__ import annotations

import math
import os
from pathlib import Path

# Where a container sees its own limit: "200000 100000" (microseconds of CPU in a period), or "max 100000" for none.
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """CPUs that this process may use: those it may run on, or fewer if its container's quota (cgroup v2) is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _quota() or allowed)


def _quota() -> int | None:
    try:
        quota, period = CPU_MAX.read_text().split()
    except (OSError, ValueError):  # another system, or a cgroup of another kind
        return None
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
