"""How many images this process asks a storage for at once: fewer when it is told to slow down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 256  # of --fetch-threads
_log = logging.getLogger(__name__)


class Pace:
    """Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989).

    Guaranteed: all processes together never have more requests under way than there are load tasks times
    --fetch-threads. Of them each, on its own, halves what it has under way for every round of answers that tell of an
    overload, down to one, and adds one for every round of good answers. Nobody is asked for leave: processes that share
    a storage come to share what it can do, because it refuses all of them. Waits between the attempts at one image are
    the fetcher's, and hold no place here.
    """

    def __init__(self) -> None:
        self.limit = float(MOST)
        self._under_way = 0
        self._slowed = 0.0
        self.answered = float("-inf")  # when the storage last said something, on the clock of time.monotonic()
        self._change = threading.Condition()

    @contextmanager
    def request(self) -> Iterator[float]:
        """A place for one request, waited for; yields when it began."""
        with self._change:
            self._change.wait_for(lambda: self._under_way < int(self.limit))
            self._under_way += 1
        try:
            yield time.monotonic()
        finally:
            with self._change:
                self._under_way -= 1
                self._change.notify_all()

    def heard(self) -> None:
        """A request was answered, be it with a refusal: the storage is there."""
        self.answered = time.monotonic()

    def good(self) -> None:
        """A request was answered with what it asked for."""
        self.heard()
        with self._change:
            self.limit = min(float(MOST), self.limit + 1 / self.limit)
            self._change.notify_all()

    def overloaded(self, began: float) -> None:
        """A request that began then was refused for want of capacity: called before its place is given back."""
        with self._change:
            if began < self._slowed:  # it was sent at the old pace, which was halved already
                return
            self.limit = max(1.0, min(self.limit, self._under_way) / 2)
            self._slowed = time.monotonic()
            _log.warning("storage is overloaded, fewer requests at once", extra={"requests": int(self.limit)})
