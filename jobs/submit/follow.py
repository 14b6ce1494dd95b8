"""Following a job to its end, over a connection that may break, while a person may want it to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.submit.dashboard import Dashboard, Unreachable
from jobs.submit.job import Job
from jobs.submit.screen import Screen
from jobs.terminal import complain, note

STOP_SECONDS = 30  # that a job has to end politely; the audit takes two thirds of it at most


@dataclass(frozen=True)
class Pace:
    """In seconds. starting: for a head that does not start jobs yet. poll: between two questions for the job.

    silence: after which the log is asked for again, because a dead connection tells nothing. patience: without an
    answer after which the cluster is given up. drain: for the rest of the log of a job that has ended. stopping: for a
    job to end after it was asked to.
    """

    starting: float = 120.0
    poll: float = 2.0
    silence: float = 60.0
    patience: float = 300.0
    drain: float = 10.0
    stopping: float = 2 * STOP_SECONDS


class Follower:
    """stops: whether SIGINT and SIGTERM stop the job; else they leave it running."""

    def __init__(self, dashboard: Dashboard, job_id: str, screen: Screen, *, stops: bool, pace: Pace):
        self._dashboard, self._id, self._screen, self._stops, self._pace = dashboard, job_id, screen, stops, pace
        self._seen = 0  # characters of the log
        self._rest = ""  # of it, the beginning of a line
        self._ask = asyncio.Event()  # for the job, at once
        self._over = asyncio.Event()  # the job has ended
        self._interrupted = asyncio.Event()

    async def code(self) -> int:
        """Follow the job to its end; returns the exit code. Raises AuditError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        reading = asyncio.create_task(self._read())
        ending = asyncio.create_task(self._end())
        wanted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait({ending, wanted}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                if not self._stops:
                    note(f"job {self._id} is left running; {self.again()}")
                    return exits.INTERRUPTED
                await self._stop()
                await asyncio.wait({ending}, timeout=self._pace.stopping)
                if not ending.done():
                    complain(f"job {self._id} was asked to stop and has not; {self.again()}")
                    return exits.INTERRUPTED
            job = ending.result()
            await asyncio.wait({reading}, timeout=self._pace.drain)
            if reading.done():
                reading.result()
            self._flush()
        finally:
            for task in (reading, ending, wanted):
                task.cancel()
            with suppress(TimeoutError):  # a connection that does not close may not keep this process
                async with asyncio.timeout(self._pace.drain):
                    await asyncio.gather(reading, ending, wanted, return_exceptions=True)
        code, said = job.ending()
        note(f"job {job.id}: {said}")
        return code

    def again(self) -> str:
        """How to follow the job later, and how to stop it."""
        address = self._dashboard.address
        return (
            f"follow it with: line-audit submit --address {address} --attach {self._id}; "
            f"stop it with: ray job stop --address {address} {self._id}"
        )

    def _interrupt(self) -> None:
        if self._interrupted.is_set():  # again: whatever the cluster does, this process ends
            self._screen.close()
            complain(f"job {self._id} may be running; {self.again()}")
            os._exit(exits.INTERRUPTED)
        self._interrupted.set()

    async def _stop(self) -> None:
        note(f"stopping job {self._id} (Ctrl+C again leaves it to itself; --detach would have left it running)")
        until = time.monotonic() + self._pace.stopping
        while True:
            try:
                return await asyncio.to_thread(self._dashboard.stop, self._id)
            except Unreachable as error:
                if time.monotonic() > until:
                    raise AuditError(exits.INTERRUPTED, f"could not be stopped: {error.message}") from error
            await asyncio.sleep(self._pace.poll)

    async def _end(self) -> Job:
        """Ask for the job until it has ended."""
        answered, lost = time.monotonic(), False
        while True:
            try:
                job = await asyncio.to_thread(self._dashboard.job, self._id)
            except Unreachable as error:
                if time.monotonic() - answered > self._pace.patience:
                    raise
                if not lost:
                    note(f"no answer from {self._dashboard.address} ({error.reason}); trying again")
                lost = True
            else:
                if lost:
                    note("connected again")
                answered, lost = time.monotonic(), False
                if job is None:
                    raise AuditError(exits.FAILED, f"the cluster does not know job {self._id}: a new head forgets jobs")
                self._screen.state(job.status)
                if job.ended:
                    self._over.set()
                    return job
            self._ask.clear()
            await _happens(self._ask, self._pace.poll)

    async def _read(self) -> None:
        """Show the log until the job has ended. Each connection gives all of it, so what was shown is left out."""
        while True:
            skip = self._seen
            pieces = self._dashboard.logs(self._id)
            try:
                while True:
                    async with asyncio.timeout(self._pace.silence):  # wait_for can lose a cancellation
                        piece = await anext(pieces)
                    new, skip = piece[skip:], max(0, skip - len(piece))
                    self._show(new)
            except StopAsyncIteration:
                self._ask.set()
                if await _happens(self._over, self._pace.poll):
                    return
            except (Unreachable, TimeoutError):
                self._ask.set()
                await _happens(self._over, self._pace.poll)

    def _show(self, text: str) -> None:
        self._seen += len(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.line(line)

    def _flush(self) -> None:
        if self._rest:
            self._screen.line(self._rest)
            self._rest = ""


async def _happens(event: asyncio.Event, within: float) -> bool:
    """Whether an event is set within so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
    return event.is_set()
