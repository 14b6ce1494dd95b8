"""Joining a Ray cluster, or starting an embedded one for this process alone."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.machine import cores, memory
from jobs.monitoring.logs import structured

# They tell of settings that we chose, at every start.
_CHATTY = (
    "ray._private.authentication.authentication_token_setup",
    "ray.data._internal.progress",
    "ray.data._internal.execution.streaming_executor",
    "ray.data._internal.logging",
)

# Ray ends workers that are idle for a second if there are more processes than CPUs, and every process of ours counts:
# the next shard then pays three CPU seconds for a new one. On a cluster that is started elsewhere, set
# RAY_idle_worker_killing_time_threshold_ms on its nodes.
SYSTEM = {
    "idle_worker_killing_time_threshold_ms": 600_000,
    "enable_metrics_collection": False,
    "task_events_report_interval_ms": 0,
    "event_stats": False,
}
# Object store of an embedded Ray, of which Ray Data spends half: shards of 256 rows are 38 MB, and four of them are
# with the extractor of two cores. From 10 GB on Ray insists on as much shared memory, of which containers have little.
STORE_BYTES_A_CORE, LEAST_STORE, MOST_STORE = 256 * 2**20, 2**30, 4 * 2**30
STORE_OF_MEMORY = 0.3
# In which Ray brings what workers have logged; what has not come by its end, never does.
LAST_LINES_SECONDS = 1.0


def working_nodes() -> list[dict[str, Any]]:
    """The nodes of the Ray that is initialised which are alive and have CPUs for work; none before there is a Ray, as
    in a dry run, which starts none."""
    nodes = ray.nodes() if ray.is_initialized() else []
    return [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """For an actor that the driver cannot do without: one that asks for no CPU is put on any node, and the work would
    end with that one."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def shared_cpus() -> float:
    """CPUs of the Ray that is initialised, if this process shares them with the stages; 0 if its node does no work."""
    nodes = working_nodes()
    here = ray.get_runtime_context().get_node_id()
    return sum(node["Resources"]["CPU"] for node in nodes) if any(node["NodeID"] == here for node in nodes) else 0.0


def joins_cluster() -> bool:
    """Whether ``ray_session`` uses a Ray that is there already, instead of starting an embedded one."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))


def store_bytes(held: int = 0) -> int:
    """Bytes for the object store of an embedded Ray. held: what lies in it for the whole session."""
    passing = min(max(STORE_BYTES_A_CORE * cores(), LEAST_STORE), MOST_STORE)
    return min(passing + held, int(STORE_OF_MEMORY * memory()))


@contextmanager
def ray_session(object_store_memory: int | None = None) -> Iterator[None]:
    """Ray for the length of the context.

    Inside ``ray job submit``, or where RAY_ADDRESS is set, that cluster; else an embedded one. A Ray that is already
    initialised is used and left as it is.

    object_store_memory: bytes, of the embedded one; None for ``store_bytes()``.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = signal.getsignal(signal.SIGTERM)
    try:
        _init(object_store_memory)
    except SystemExit as error:  # Ray has put a handler for SIGTERM in the place of ours, which exits with 15
        if error.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)
    try:
        yield
    finally:
        if structured():
            time.sleep(LAST_LINES_SECONDS)
        ray.shutdown()


def _init(object_store_memory: int | None) -> None:
    if joins_cluster():
        ray.init(logging_level=logging.WARNING)
    else:
        # It listens on the machine's address. The token that Ray would make lies in the home, for every user to read.
        # One for all sessions of a process, because Ray reads it once.
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # "local" and not "auto": the file of a head that was killed would make it look for a cluster that is gone.
        ray.init(
            address="local",
            object_store_memory=object_store_memory or store_bytes(),
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=True,
            configure_logging=True,
            _system_config=SYSTEM,
        )
