"""One process a run. The lock is an object that the storage creates for one of two who ask at once.

What is guaranteed: of processes that start together one gets the lock; a lock whose owner is dead on this machine is
taken over at once, any other when its heartbeat is further away than STALE_SECONDS by the clocks of the two machines,
and stays as it is while we look at it; of two that take over, one gets it, because each must first create a marker that
names the owner it found dead. What is not: a process that sleeps longer than that and wakes up does not know it at the
same moment, and may even write its heartbeat over the new owner's; so an owner looks again right before it publishes,
and only one can find itself there. Should it be taken over between that look and the publication, both publish the same
rows, those of the shards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

import psutil

from jobs.audit.exits import LOCKED, AuditError
from jobs.listing import names
from jobs.monitoring.logs import announce
from jobs.storage import create, delete, prune, read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join, parent

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 90.0
# A clock that is wrong makes a live owner look silent: its heart must beat within so many of its heartbeats.
BEATS_TO_SEE = 2.5
_NOBODY: dict[str, Any] = {"beat": 0.0}


class RunLock:
    """A context in which this process, and no other, may work on a run."""

    def __init__(self, uri: str, heartbeat: float = HEARTBEAT_SECONDS, stale: float = STALE_SECONDS):
        self.uri, self.heartbeat, self.stale = uri, heartbeat, stale
        self.token = uuid.uuid4().hex
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run-lock", daemon=True)

    def __enter__(self) -> RunLock:
        while not create(self.uri, self._content()):
            owner = self._owner()
            if owner is not None and owner.get("token") == self.token:
                break  # it was created, but the answer was lost, and the client asked again
            if owner is not None and not (_is_stale(owner, self.stale) and self._is_still(owner, self.uri)):
                raise AuditError(
                    LOCKED,
                    f"another process holds this run: pid {owner.get('pid')} on {owner.get('host')}, "
                    f"last heard of {time.time() - owner['beat']:.0f} s ago ({self.uri})",
                )
            if owner is not None and self._take_over(owner):
                break
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._release()
        except StorageAccessError as second:
            if error is None:
                raise
            # The run ends for its own reason; whoever comes next finds a lock whose owner is dead.
            announce(f"the run's lock could not be released: {second}")

    def _release(self) -> None:
        owner = self._owner()
        if owner is not None and owner.get("token") == self.token:
            folder = parent(self.uri)
            for name in names(folder):  # markers: the owners that they name have not had the lock for long
                if name.startswith(self.uri.rpartition("/")[2] + "."):
                    delete(join(folder, name))
            delete(self.uri)
            prune(parent(self.uri), levels=4)  # a run that was refused leaves no output/runs/date/name

    def _is_still(self, owner: dict[str, Any], uri: str) -> bool:
        """Whether what an owner that seems dead wrote stays as it is while we look; one on this machine is known to be
        dead. A marker never changes, but whoever made it, if alive, has the lock by then."""
        if owner == _NOBODY or _is_here(owner):
            return True
        ahead = owner["beat"] > time.time()  # then its clock does not say how long it has been silent
        seconds = self.stale if ahead else BEATS_TO_SEE * self.heartbeat
        announce(f"looking for {seconds:.0f} s whether the owner of {uri} is alive")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.heartbeat / 4)
            if self._read(uri) != owner:
                return False
        return True

    def _take_over(self, dead: dict[str, Any]) -> bool:
        """Whether the lock of a dead owner is ours now; False if it is his no more, and one must look again."""
        last = dead
        # The marker stays while the lock is held: whoever found the same dead owner, and comes late, finds it.
        while not create(marker := f"{self.uri}.{_digest(last)}", self._content()):
            taker = self._read(marker)
            if taker is None:
                return False
            if taker.get("token") == self.token:
                break  # as above: the answer was lost
            if taker == last or not (_is_stale(taker, self.stale) and self._is_still(taker, marker)):
                raise AuditError(
                    LOCKED,
                    f"another process is taking this run over: pid {taker.get('pid')} on {taker.get('host')}; "
                    f"if it is not, delete {marker} and {self.uri}",
                )
            last = taker
        if self._owner() != dead:
            return False
        write_bytes(self.uri, self._content())
        return True

    def check(self) -> None:
        """Raises AuditError if the lock is no longer ours: then nothing may be committed."""
        owner = self._owner()
        if owner is None or owner.get("token") != self.token:
            raise AuditError(LOCKED, f"the lock of this run was taken over by another process ({self.uri})")

    def glance(self) -> None:
        """``check``, but only if a heartbeat has found the lock taken over: it costs nothing else."""
        if self._lost.is_set():
            self.check()

    def _content(self) -> bytes:
        return json.dumps({**_identity(), "token": self.token, "beat": time.time()}).encode()

    def _owner(self) -> dict[str, Any] | None:
        return self._read(self.uri)

    def _read(self, uri: str) -> dict[str, Any] | None:
        try:
            owner = json.loads(read_bytes(uri))
        except FileNotFoundError:
            return None
        except ValueError:  # not written by us: it keeps nobody out for ever
            return dict(_NOBODY)
        beat = owner.get("beat") if isinstance(owner, dict) else None
        if isinstance(beat, bool) or not isinstance(beat, int | float) or not math.isfinite(beat):
            return dict(_NOBODY)
        return owner

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat):
            try:
                owner = self._owner()
                if owner is None or owner.get("token") != self.token:
                    self._lost.set()
                    return
                write_bytes(self.uri, self._content())
            except Exception as error:
                # A missed beat is no reason to end the run: the lock only grows older, and check() decides.
                announce(f"the run's lock could not be renewed: {error}")


def _digest(owner: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()[:16]


def _identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "namespace": _namespace(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _is_here(owner: dict[str, Any]) -> bool:
    """Whether its process id says something to this process."""
    here = owner.get("host") == socket.gethostname() and owner.get("namespace") == _namespace()
    pid, started = owner.get("pid"), owner.get("started")
    return here and isinstance(pid, int) and pid > 0 and isinstance(started, int | float)


def _is_stale(owner: dict[str, Any], stale: float) -> bool:
    if _is_here(owner):
        try:
            process = psutil.Process(owner["pid"])
            return abs(process.create_time() - owner["started"]) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
    return bool(abs(time.time() - owner["beat"]) > stale)


def _namespace() -> str:
    # Process ids mean something only within one boot of one pid namespace; a container has its own.
    try:
        return f"{os.readlink('/proc/self/ns/pid')} {int(psutil.boot_time())}"
    except OSError:
        return f"no-namespace {int(psutil.boot_time())}"
