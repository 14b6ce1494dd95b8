"""An end to a run in which nothing moves any more: Ray Data itself would wait for ever."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jobs.audit.exits import Stalled
from jobs.audit.figures import Spent

# A run that may stand still for STEP_SECONDS only is told of shards, not of steps within them.
LOOK_SECONDS = STEP_SECONDS = 10.0
WAKE = signal.SIGUSR1
END_SECONDS = 1.0
_Item = TypeVar("_Item")
_END = object()


@dataclass(frozen=True)
class Movement:
    """How far the stages are. begun: shards that a loader began, again or for the first time. images: by stage; since:
    seconds since a stage last finished a shard, or a call. spent: by stage. in_hand: shards by the stage that they wait
    for or are in. tried_again: attempts at shards that were not their first. steps: how often a stage has told that it
    is further within a shard."""

    begun: int
    images: dict[str, int]
    since: dict[str, float]
    spent: dict[str, Spent] = field(default_factory=dict)
    in_hand: dict[str, int] = field(default_factory=dict)
    tried_again: int = 0
    steps: int = 0

    @property
    def progress(self) -> tuple[int, dict[str, int], int]:
        """What is another one if anything has moved."""
        return self.begun, self.images, self.steps

    def __str__(self) -> str:
        told = [f"{self.begun} shards begun"]
        told += [f"{stage} {count} images (last {self.since[stage]:.0f} s ago)" for stage, count in self.images.items()]
        return ", ".join(told)


def watched(
    items: Iterator[_Item],
    movement: Callable[[], Movement],
    state: Callable[[], str],
    patience: float,
    check: Callable[[], None],
    look: float = LOOK_SECONDS,
) -> Iterator[_Item]:
    """The items, while a thread looks after them. It interrupts the main thread of a process, and no other can be; with
    SIGUSR1, because SIGINT is ignored in what a script starts in the background. Elsewhere items are only passed on.

    movement: asked now and then; what differs from the last answer is progress, as an item is. check: called as often,
    raises if the run must end. Raises what these raise, and Stalled, with the movement and the ``state``, when there
    was neither an item nor movement for ``patience`` seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from items
        return
    before = signal.signal(WAKE, signal.default_int_handler)
    watchdog = _Watchdog(movement, state, patience, check, min(look, patience))
    try:
        while True:
            try:
                with watchdog.waiting():
                    item = next(items, _END)
            except KeyboardInterrupt:
                if watchdog.reason is None:
                    raise
                raise watchdog.reason from None
            if item is _END:
                return
            yield item  # type: ignore[misc]
    finally:
        watchdog.end()
        signal.signal(WAKE, before)


class Steps:
    """Tells the registry now and then that a stage is further within its shard: a shard of large images on a slow
    network takes longer than a run may stand still."""

    def __init__(self, registry: Any):
        self.registry, self.told = registry, time.monotonic()

    def __call__(self) -> None:
        """One image, or a batch of them, is done."""
        if time.monotonic() - self.told > STEP_SECONDS:
            self.told = time.monotonic()
            self.registry.step.remote()


class _Watchdog:
    """Interrupts the main thread, with a reason, while it waits for an item that does not come."""

    def __init__(
        self,
        movement: Callable[[], Movement],
        state: Callable[[], str],
        patience: float,
        check: Callable[[], None],
        look: float,
    ):
        self.movement, self.state, self.patience, self.check, self.look = movement, state, patience, check, look
        self.reason: BaseException | None = None
        self.last, self.waits, self.lock, self.over = time.monotonic(), False, threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the main thread waits for an item; only then it is interrupted."""
        with self.lock:
            self.waits = True
        try:
            yield
        finally:
            with self.lock:
                self.waits, self.last = False, time.monotonic()

    def end(self) -> None:
        with self.lock:
            self.over.set()
        self.thread.join(END_SECONDS)  # it may be asking a Ray that is shut down next

    def _watch(self) -> None:
        seen: object = None
        while not self.over.wait(self.look):
            try:
                self.check()
                now = self.movement()
                if now.progress != seen:
                    seen = now.progress
                    self.last = time.monotonic()
                elif self.waits and time.monotonic() - self.last >= self.patience:
                    raise Stalled(
                        f"nothing has moved for {time.monotonic() - self.last:.0f} s (--stall-timeout): {now}; "
                        f"{self.state()}. The same command resumes the run"
                    )
            except BaseException as error:  # whatever it is, the main thread is to raise it
                self._interrupt(error)  # at every look, because somebody's code may swallow it

    def _interrupt(self, reason: BaseException) -> None:
        with self.lock:
            if self.waits and not self.over.is_set():
                self.reason = reason
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
