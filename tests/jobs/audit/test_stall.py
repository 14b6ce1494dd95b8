"""A run in which nothing moves any more ends, says where it stands, and is gone on with."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from jobs.audit import exits, stall
from jobs.audit.exits import AuditError, Stalled
from jobs.audit.registry import Registry, ScorerSettings
from jobs.audit.stall import WAKE, Movement, watched


def still() -> Movement:
    return Movement(3, {"load": 8}, {"load": 12.0})


def pull(items: Iterator[int], patience: float = 0.2, **changed: object) -> list[int]:
    chosen = {"movement": still, "state": lambda: "shard 7 in hand", "check": lambda: None} | changed
    return list(watched(items, patience=patience, look=0.05, **chosen))  # type: ignore[arg-type]


def never() -> Iterator[int]:
    yield 1
    threading.Event().wait(20)


def test_items_come_in_order_and_the_end_is_the_end() -> None:
    assert pull(iter(range(50))) == list(range(50))


def test_what_the_items_raise_is_raised() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise AuditError(exits.NO_ACCESS, "the bucket is gone")

    with pytest.raises(AuditError, match="the bucket is gone") as caught:
        pull(broken())
    assert caught.value.code == exits.NO_ACCESS


def test_no_item_and_no_movement_is_a_stall() -> None:
    begun = time.monotonic()
    with pytest.raises(Stalled) as caught:
        pull(never())
    assert 0.2 <= time.monotonic() - begun < 5
    assert "3 shards begun, load 8 images (last 12 s ago); shard 7 in hand" in caught.value.message
    assert caught.value.code == exits.FAILED
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.message) == (Stalled, caught.value.message)


def test_movement_without_an_item_is_progress() -> None:
    count = iter(range(1000))

    def slow() -> Iterator[int]:
        time.sleep(0.6)
        yield 1

    assert pull(slow(), movement=lambda: Movement(next(count), {}, {})) == [1]
    assert pull(slow(), movement=lambda: Movement(3, {}, {}, steps=next(count))) == [1]
    with pytest.raises(Stalled):
        pull(slow())


def test_a_stage_tells_now_and_then_that_it_is_further(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 11.0, 11.0, 15.0, 22.0, 22.0])
    monkeypatch.setattr(stall.time, "monotonic", lambda: next(clock))
    registry = Registry(ScorerSettings("top10_mean_224", "cpu", "float32", 1, 1, {}), [], {})
    step = stall.Steps(SimpleNamespace(step=SimpleNamespace(remote=registry.step)))
    seen = []
    for _ in range(4):
        step()
        seen.append(registry.movement().steps)
    assert seen == [0, 1, 1, 2]


def test_a_check_that_fails_ends_it_while_nothing_comes() -> None:
    def lost() -> None:
        raise AuditError(exits.LOCKED, "taken over")

    with pytest.raises(AuditError, match="taken over"):
        pull(never(), patience=60.0, check=lost)


def test_one_that_ignores_interrupts_is_ended_too() -> None:
    """As a job that a script starts in the background; and what swallows an interrupt is interrupted again."""
    swallowed = []

    def deaf() -> Iterator[int]:
        while len(swallowed) < 2:
            try:
                threading.Event().wait(20)
            except KeyboardInterrupt:
                swallowed.append(True)
        threading.Event().wait(20)
        yield 1

    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(WAKE)
    try:
        begun = time.monotonic()
        with pytest.raises(Stalled):
            pull(deaf())
        assert time.monotonic() - begun < 10
        assert (len(swallowed), signal.getsignal(WAKE)) == (2, before[1])
    finally:
        signal.signal(signal.SIGINT, before[0])


def test_in_another_thread_the_items_are_passed_on() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(pull(iter([1, 2]), patience=0.01)))
    thread.start()
    thread.join()
    assert found == [1, 2]
