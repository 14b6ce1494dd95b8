"""How long a command may take to end when it is asked to, before whoever asked kills it."""

from __future__ import annotations

from collections.abc import Mapping

# Ray sets it for the driver of a submitted job.
SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Seconds that Ray waits for a job that it asked to stop: 3, unless the cluster or ``line-audit submit`` say otherwise.
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
# Schedulers kill half a minute after they asked.
LONGEST = 20.0


def grace_seconds(environment: Mapping[str, str]) -> float:
    """Seconds for ending politely, of a process with this environment."""
    if SUBMITTED not in environment:
        return LONGEST
    return min(LONGEST, float(environment.get(STOP_WAIT, 3)) * 2 / 3)
