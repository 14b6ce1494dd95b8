"""How much of a machine Ray Data's loop takes, and when it waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from jobs import cluster_session
from jobs.audit import loop
from jobs.audit.loop import LONGEST_SECONDS, SHARE, Paced, pause
from jobs.cluster_session import shared_cpus, working_nodes
from jobs.machine import cores

LATE = 1000.0


@pytest.mark.parametrize(
    ("used", "cpus", "elapsed", "shards", "seconds"),
    [
        (0.004, 2, LATE, 16, 0.3),
        (0.004, 4, LATE, 16, 0.1),
        (0.004, 8, LATE, 16, 0.0),
        (0.004, 64, LATE, 16, 0.0),
        (0.004, 2, 10.0, 1, 0.1),
        (0.004, 2, 10.0, 100, 0.003),
        (0.004, 2, LATE, 1000, 0.03),
        (0.004, 2, 0.0, 1, 0.0),
        (0.004, 2, LATE, 0, 0.3),
        (0.050, 2, LATE, 16, LONGEST_SECONDS),
    ],
)
def test_a_pause_suits_the_machine_the_run_and_its_shards(
    used: float, cpus: float, elapsed: float, shards: int, seconds: float
) -> None:
    assert pause(used, 0.1, cpus, elapsed, shards) == pytest.approx(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for the time module of the loop; what passes is counted."""
    fake = SimpleNamespace(now=50.0, cpu=3.0, slept=[])

    def sleep(seconds: float) -> None:
        fake.slept.append(seconds)
        fake.now += seconds
        fake.cpu += 0.0001  # nothing is free

    fake.sleep, fake.monotonic, fake.thread_time = sleep, lambda: fake.now, lambda: fake.cpu
    monkeypatch.setattr(loop, "time", fake)
    return fake


def test_a_long_run_keeps_to_its_share(clock: SimpleNamespace) -> None:
    executor: Any = None
    paced, since = Paced(2, 16), (0.0, 0.0)
    for step in range(1500):
        clock.now += 0.105
        clock.cpu += 0.0035
        paced.on_execution_step(executor)
        if step == 1000:
            since = (clock.now, clock.cpu)
    assert clock.slept[0] <= 0.002, "the second step is a tenth of a second into the run"
    assert sorted(clock.slept[:100]) == clock.slept[:100], "pauses grow with the run"
    used, passed = clock.cpu - since[1], clock.now - since[0]
    assert 0.9 * SHARE < used / (2 * passed) < 1.05 * SHARE


@pytest.fixture
def context() -> Iterator[Any]:
    context = ray.data.DataContext.get_current()
    before = context.custom_execution_callback_classes
    yield context
    context.custom_execution_callback_classes = before


@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_asks_after_every_step(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paced, steps = list[float](), list[float]()
    monkeypatch.setattr(loop, "pause", lambda used, step, *_: paced.append(used) or 0.0)
    step = StreamingExecutor._scheduling_loop_step

    def counted(self: StreamingExecutor, topology: Any) -> bool:
        began, more = time.thread_time(), step(self, topology)
        steps.append(time.thread_time() - began)
        return more

    monkeypatch.setattr(StreamingExecutor, "_scheduling_loop_step", counted)
    context.custom_execution_callback_classes = [partial(Paced, 2, 1)]
    assert ray.data.from_items([1, 2]).map_batches(lambda batch: batch).take_all() == [{"item": 1}, {"item": 2}]
    assert len(paced) == len(steps) - 1 > 0
    assert all(told >= spent > 0 for told, spent in zip(paced, steps[1:], strict=True)), (
        "what it is told is the step's CPU"
    )


@pytest.mark.usefixtures("ray_cluster")
def test_a_driver_whose_node_does_no_work_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_cpus() == cores()
    (here,) = working_nodes()
    other = {"NodeID": "f" * 56, "Resources": {"CPU": 16.0}}
    monkeypatch.setattr(cluster_session, "working_nodes", lambda: [here, other])
    assert shared_cpus() == cores() + 16
    monkeypatch.setattr(cluster_session, "working_nodes", lambda: [other])
    assert shared_cpus() == 0
