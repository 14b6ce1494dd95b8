"""Turns on the CPUs: not more at once than cores, and a killed process gives its turn back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import pytest

from jobs.audit import turns
from jobs.machine import cores

KEY = 0x6D000000 + os.getpid() % 0x8000


@pytest.fixture(autouse=True)
def a_semaphore_of_our_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Audits of other tests may be using the node's."""
    semaphore = turns._semaphore
    monkeypatch.setattr(turns, "_KEY", KEY)
    semaphore.cache_clear()
    yield
    identifier = semaphore(os.getpid())
    if identifier is not None:
        turns._libc().semctl(identifier, 0, 0)  # IPC_RMID
    semaphore.cache_clear()


def hold(key: int, begun: Event, leave: Event) -> None:
    turns._KEY = key
    with turns.turn():
        begun.set()
        leave.wait(60)


def started(context: Any) -> tuple[Any, Event, Event]:
    begun, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(KEY, begun, leave))
    process.start()
    return process, begun, leave


@contextmanager
def all_held(context: Any) -> Iterator[list[tuple[Any, Event]]]:
    """As many processes as there are cores, each holding a turn until its event is set."""
    holding = [started(context) for _ in range(cores())]
    try:
        for _, begun, _ in holding:
            assert begun.wait(60)
        yield [(process, leave) for process, _, leave in holding]
    finally:
        for process, _, leave in holding:
            if process.is_alive():  # setting the event waits for everyone who waits for it, the dead included
                leave.set()
            process.join(10)


def test_as_many_hold_a_turn_as_there_are_cores_and_the_next_waits() -> None:
    context = multiprocessing.get_context("spawn")
    with all_held(context) as holding:
        process, begun, leave = started(context)
        assert not begun.wait(2), "one more than there are cores"
        holding[0][1].set()
        assert begun.wait(10), "a turn that was given back was not taken"
        leave.set()
        process.join(10)


def test_a_killed_process_gives_its_turn_back() -> None:
    context = multiprocessing.get_context("spawn")
    with all_held(context) as holding:
        for process, _ in holding:
            os.kill(process.pid, signal.SIGKILL)
            process.join(10)
        start = time.monotonic()
        with turns.turn():
            assert time.monotonic() - start < 5


def test_without_such_semaphores_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_semaphore", lambda pid: None)
    with turns.turn(), turns.turn(), turns.turn(), turns.turn():
        pass


def test_an_error_inside_gives_the_turn_back() -> None:
    for _ in range(2 * cores() + 1):
        with pytest.raises(KeyError), turns.turn():
            raise KeyError
