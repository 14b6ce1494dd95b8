"""How many requests are under way at once, in quiet times and when the storage says that it is too much."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from jobs.audit.pace import MOST, Pace


def overload(pace: Pace, under_way: int) -> float:
    """The limit after one round in which all that were under way were refused."""
    with ExitStack() as stack:
        began = [stack.enter_context(pace.request()) for _ in range(under_way)]
        for one in began:
            pace.overloaded(one)
    return pace.limit


def test_it_bounds_nothing_until_it_is_told() -> None:
    pace = Pace()
    with ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(pace.request())
    assert pace.limit == MOST


def test_a_round_of_refusals_halves_what_was_under_way_once() -> None:
    pace = Pace()
    assert [overload(pace, n) for n in (16, 8, 4, 2, 1, 1)] == [8, 4, 2, 1, 1, 1]


def test_a_round_of_answers_adds_one() -> None:
    pace = Pace()
    overload(pace, 16)
    for _ in range(9):  # a little more than eight, because each of them widens the round
        pace.good()
    assert 9 <= pace.limit < 9.1
    for _ in range(MOST * MOST):
        pace.good()
    assert pace.limit == MOST


def test_no_more_than_the_limit_are_under_way_and_all_get_their_turn() -> None:
    pace, lock, now, most = Pace(), threading.Lock(), [0], [0]
    overload(pace, 8)

    def ask(_: int) -> None:
        with pace.request():
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.005)
            with lock:
                now[0] -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(48)))
    assert (most[0], now[0]) == (4, 0)


def test_a_request_that_fails_gives_its_place_back() -> None:
    pace = Pace()
    overload(pace, 2)
    for _ in range(3):
        try:
            with pace.request():
                raise OSError
        except OSError:
            pass
    with pace.request():
        pass
