"""How far a load task reads ahead: in images, and in bytes."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.audit import load
from jobs.audit.load import _ahead, _bytes_of


class Immediate:
    """A pool whose work is done at once; notes the most that was begun and not yet taken."""

    def __init__(self) -> None:
        self.begun = 0

    def submit(self, function: Any, row: Any) -> Future[Any]:
        self.begun += 1
        future: Future[Any] = Future()
        future.set_result(function(row))
        return future


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(0, 40), max_size=60), count=st.integers(1, 20))
def test_all_come_in_order_and_few_bytes_wait(sizes: list[int], count: int) -> None:
    pool, taken = Immediate(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "AHEAD_BYTES", 64)
        patch.setattr(load, "AHEAD_AT_FIRST", 2)
        for future in _ahead(pool, lambda size: (b"x" * size, {}), sizes, count, _bytes_of):  # type: ignore[arg-type]
            taken.append(len(future.result()[0]))
            waiting = sizes[len(taken) : pool.begun]
            assert len(waiting) <= count
            assert sum(waiting) <= 64 + 40, "no more than the bound, and the one that went beyond it"
    assert taken == sizes


def test_few_are_begun_before_the_first_size_is_known_and_then_as_many_as_there_are_threads() -> None:
    release = threading.Event()
    started: list[int] = []

    def fetched(row: int) -> tuple[bytes, dict[str, Any]]:
        started.append(row)
        release.wait(20)
        return b"x", {}

    with ThreadPoolExecutor(16) as pool:
        futures = _ahead(pool, fetched, range(100), 16, _bytes_of)
        first = next(futures)
        assert (len(started) <= load.AHEAD_AT_FIRST + 1, first.done()) == (True, False)
        release.set()
        assert first.result() == (b"x", {})
        for _ in range(40):
            next(futures).result()
        assert len(started) >= 41 + 10
        assert [future.result()[0] for future in futures] == [b"x"] * 59


def test_what_failed_or_is_not_there_has_no_bytes() -> None:
    waiting: Future[Any] = Future()
    failed: Future[Any] = Future()
    failed.set_exception(OSError("gone"))
    cancelled: Future[Any] = Future()
    cancelled.cancel()
    nothing: Future[Any] = Future()
    nothing.set_result((None, {}))
    assert [_bytes_of(one) for one in (waiting, failed, cancelled, nothing)] == [0] * 4
