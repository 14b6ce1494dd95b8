"""The lock of a run: one owner, taken over when its owner is dead or silent, and never kept by one who lost it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import storage
from jobs.audit import lock as module
from jobs.audit.exits import LOCKED, AuditError
from jobs.audit.lock import RunLock
from jobs.listing import listing
from jobs.storage import create, delete, exists, read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import is_local, join

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def uri(place: str) -> str:
    return join(place, "runs", "2026-03-14", "audit", "lock.json")


def content(uri: str) -> dict[str, Any]:
    owner = json.loads(read_bytes(uri))
    assert isinstance(owner, dict)
    return owner


def mine(**changes: Any) -> dict[str, Any]:
    """What a lock of this very process says, with changes."""
    return {**module._identity(), "token": "somebody", "beat": time.time(), **changes}


def put(uri: str, owner: object) -> None:
    write_bytes(uri, owner if isinstance(owner, bytes) else json.dumps(owner).encode())


def refused(uri: str, stale: float = 90.0) -> str:
    """The message with which the lock is refused; what is there stays as it is."""
    before = read_bytes(uri)
    with pytest.raises(AuditError) as caught, RunLock(uri, stale=stale):
        pass
    assert caught.value.code == LOCKED == 6
    assert read_bytes(uri) == before
    return caught.value.message


def taken(uri: str) -> None:
    """Asserts that the lock is had, at once, or after some quick heartbeats."""
    start = time.monotonic()
    with RunLock(uri, heartbeat=0.2) as held:
        assert content(uri)["token"] == held.token
        held.check()
    assert time.monotonic() - start < 5
    assert not exists(uri)


def test_the_second_is_refused_and_the_third_gets_what_the_first_left(uri: str) -> None:
    with RunLock(uri) as first:
        owner = content(uri)
        assert (owner["pid"], owner["host"], owner["token"]) == (os.getpid(), socket.gethostname(), first.token)
        assert abs(owner["beat"] - time.time()) < 30
        message = refused(uri)
        assert f"another process holds this run: pid {os.getpid()} on {socket.gethostname()}" in message
        assert uri in message
        first.check()
    assert not exists(uri)
    taken(uri)


def test_it_is_released_when_the_run_fails(uri: str) -> None:
    with pytest.raises(KeyError), RunLock(uri):
        raise KeyError("a failure of the run")
    assert not exists(uri)
    assert list(listing(uri.rpartition("/")[0])) == []


OWNER = """
import sys, time
from jobs.audit.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_whose_owner_was_killed_is_taken_over_at_once(uri: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, uri], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        assert f"pid {owner.pid} on" in refused(uri)
        owner.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert content(uri)["pid"] == owner.pid
        if is_local(uri):
            taken(uri)  # it is still there as a zombie: nobody has waited for it
            put(uri, mine(pid=owner.pid, started=0.0))
    finally:
        owner.kill()
        owner.wait()
    taken(uri)


STALE: dict[str, Callable[[], object]] = {
    "a process that is gone": lambda: mine(pid=2**22 + 1),
    "its process id now belongs to another": lambda: mine(started=module._identity()["started"] - 3600),
    "silent for long, on another machine": lambda: mine(host="elsewhere", beat=time.time() - 91),
    "silent for long, in another container": lambda: mine(namespace="pid:[1] 1", beat=time.time() - 91),
    "written halfway: nothing": lambda: b"",
    "written halfway": lambda: b'{"host": "elsewhere", "beat": 17',
    "no text": lambda: b"\xff\xfe\x00",
    "a list": list,
    "a word": lambda: "beat",
    "an empty object": dict,
}


@pytest.mark.parametrize("kind", STALE)
def test_a_stale_lock_is_taken_over(uri: str, kind: str) -> None:
    put(uri, STALE[kind]())
    taken(uri)


FRESH: dict[str, Callable[[], object]] = {
    "this process": mine,
    "this process, silent for long: it is alive and only slow": lambda: mine(beat=time.time() - 10_000),
    "another machine": lambda: mine(host="elsewhere", pid=4711, started=1.0),
    "another machine, silent for a while": lambda: mine(host="elsewhere", pid=4711, beat=time.time() - 80),
    "another container on this machine": lambda: mine(namespace="pid:[1] 1", pid=4711),
    "another machine whose clock is a little ahead": lambda: mine(host="elsewhere", pid=4711, beat=time.time() + 80),
    "another version, which says less": lambda: {"beat": time.time()},
}


@pytest.mark.parametrize("kind", FRESH)
def test_a_fresh_lock_is_respected(uri: str, kind: str) -> None:
    owner = FRESH[kind]()
    put(uri, owner)
    assert isinstance(owner, dict)
    assert f"pid {owner.get('pid')} on {owner.get('host')}" in refused(uri)


@pytest.mark.parametrize("clock", [-3600.0, 3600.0])
@pytest.mark.parametrize("alive", [True, False])
def test_a_wrong_clock_kills_nobody_and_keeps_nobody_out(
    tmp_path: Path, clock: float, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "lock.json")
    put(uri, mine(host="elsewhere", beat=time.time() + clock))
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if alive and len(waits) == 3:
            put(uri, mine(host="elsewhere", beat=time.time() + clock))

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(waits))
    lock = RunLock(uri, heartbeat=10.0, stale=90.0)
    if alive:
        with pytest.raises(AuditError, match="another process holds this run"):
            lock.__enter__()
        assert sum(waits) == 7.5
        return
    assert lock._is_still(content(uri), uri)
    assert sum(waits) == (90.0 if clock > 0 else 25.0)


def test_a_marker_that_was_created_but_whose_answer_was_lost_is_ours(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def created_but_asked_again(path: str, data: bytes) -> bool:
        if path != uri:
            assert create(path, data)
        return create(path, data)

    put(uri, mine(pid=2**22 + 1))
    monkeypatch.setattr(module, "create", created_but_asked_again)
    with RunLock(uri, heartbeat=60) as lock:
        lock.check()
        assert len(markers(uri)) == 1
    assert not exists(uri)


@pytest.mark.parametrize(
    "changes",
    [
        {"beat": "soon"},
        {"beat": None},
        {"host": 5, "beat": []},
    ],
    ids=str,
)
def test_a_lock_of_wrong_types_is_garbage(tmp_path: Path, changes: dict[str, Any]) -> None:
    uri = str(tmp_path / "lock.json")
    put(uri, {**mine(host="elsewhere"), **changes} if "beat" in changes else mine(**changes))
    taken(uri)


def test_check_says_when_the_lock_was_lost(uri: str) -> None:
    for loss in (lambda: put(uri, mine(host="elsewhere")), lambda: delete(uri), lambda: put(uri, b"")):
        with RunLock(uri) as held:
            held.check()
            loss()
            with pytest.raises(AuditError, match="taken over by another process") as caught:
                held.check()
            assert caught.value.code == LOCKED
        if exists(uri):
            delete(uri)


def test_a_glance_says_so_once_a_heartbeat_has_found_the_lock_lost(uri: str) -> None:
    with RunLock(uri, heartbeat=0.05) as lock:
        lock.glance()
        put(uri, mine())
        deadline = time.monotonic() + 20
        found: AuditError | None = None
        while found is None and time.monotonic() < deadline:
            time.sleep(0.02)
            try:
                lock.glance()
            except AuditError as error:
                found = error
        assert found is not None
        assert (found.code, "taken over by another process" in found.message) == (LOCKED, True)


def test_whoever_lost_the_lock_leaves_it_to_its_new_owner(uri: str) -> None:
    with RunLock(uri, heartbeat=0.5):
        first = content(uri)
        while content(uri) == first:  # a beat looks first and then writes: what is put between is lost
            time.sleep(0.01)
        put(uri, mine(host="elsewhere", token="new"))
        time.sleep(1.2)
        assert content(uri)["token"] == "new"  # not beaten over
    assert content(uri)["token"] == "new"  # not deleted at the end


def test_the_heartbeat_renews_the_lock(uri: str) -> None:
    with RunLock(uri, heartbeat=0.02) as held:
        first = content(uri)
        deadline = time.monotonic() + 30
        while content(uri)["beat"] < first["beat"] + 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert {**content(uri), "beat": 0} == {**first, "beat": 0}
        held.check()
    assert not exists(uri)
    time.sleep(0.1)
    assert not exists(uri)  # no beat comes after the end


def test_a_beat_that_fails_is_told_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "lock.json")
    failures = [OSError(5, "Input/output error")] * 2

    def write(uri: str, data: bytes) -> None:
        if failures:
            raise failures.pop()
        write_bytes(uri, data)

    monkeypatch.setattr(module, "write_bytes", write)
    with RunLock(uri, heartbeat=0.02) as held:
        beat = content(uri)["beat"]
        deadline = time.monotonic() + 30
        while content(uri)["beat"] == beat:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        held.check()
    assert capsys.readouterr().out.count("could not be renewed: [Errno 5] Input/output error") == 2


def test_of_two_who_take_over_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two find the same dead owner; the faster one has taken over when the slower one is about to."""
    uri = str(tmp_path / "lock.json")
    put(uri, mine(pid=2**22 + 1))
    faster, slower = RunLock(uri), RunLock(uri)
    waiting = [faster]

    def later(path: str, data: bytes) -> bool:
        if waiting and path != uri:
            waiting.pop().__enter__()
        return create(path, data)

    monkeypatch.setattr(module, "create", later)
    with pytest.raises(AuditError), slower:
        pass
    faster.check()
    faster.__exit__(None, None, None)


@pytest.mark.parametrize("killed", [1, 2])
def test_one_who_was_killed_while_taking_over_keeps_nobody_out_for_ever(
    uri: str, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    put(uri, mine(pid=2**22 + 1))
    for number in range(killed):
        with monkeypatch.context() as patch:
            # It dies between its marker and the lock: what it wrote says a process that is gone.
            gone = {**module._identity(), "pid": 2**22 + 2 + number}
            patch.setattr(module, "_identity", lambda gone=gone: gone)
            patch.setattr(module, "write_bytes", lambda path, data: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt), RunLock(uri):
                pass
    assert len(markers(uri)) == killed
    taken(uri)
    assert list(listing(uri.rpartition("/")[0])) == []  # no markers either


def test_one_who_is_taking_over_is_respected(uri: str) -> None:
    dead = mine(pid=2**22 + 1)
    put(uri, dead)
    put(f"{uri}.{module._digest(dead)}", mine())
    assert f"is taking this run over: pid {os.getpid()} on {socket.gethostname()}" in refused(uri)


def markers(uri: str) -> list[str]:
    return [e.relative_path for e in listing(uri.rpartition("/")[0]) if e.relative_path.startswith("lock.json.")]


def test_a_lock_that_is_being_written_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two start together on a local disk; the second looks while the first fills its new file."""
    uri = str(tmp_path / "lock.json")
    first, second = RunLock(uri), RunLock(uri)
    held: list[RunLock] = []
    waiting = [second]

    def enter(lock: RunLock) -> None:
        with contextlib.suppress(AuditError):
            held.append(lock.__enter__())

    def opened(path: str, mode: str) -> Any:
        file = open(path, mode)  # noqa: SIM115
        if waiting and "r" not in mode:
            enter(waiting.pop())
        return file

    monkeypatch.setattr(storage, "open", opened, raising=False)
    enter(first)
    for lock in waiting:
        enter(lock)
    assert len(held) == 1
    held[0].__exit__(None, None, None)


def refusing(*_: object) -> bytes:
    raise StorageAccessError("no access any more")


def hold_and_lose_access(folder: Path, patch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    with RunLock(str(folder / "lock.json"), heartbeat=60):
        patch.setattr(module, "read_bytes", refusing)
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AuditError(1, "stalled"), StorageAccessError("locked out")])
def test_a_run_ends_for_its_own_reason_if_its_lock_cannot_be_released(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)) as caught:
        hold_and_lose_access(tmp_path, monkeypatch, error)
    assert caught.value is error
    assert "the run's lock could not be released: no access any more" in capsys.readouterr().out


def test_a_lock_that_cannot_be_released_is_told_if_nothing_else_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageAccessError, match="no access any more"):
        hold_and_lose_access(tmp_path, monkeypatch, None)


def test_a_lock_that_was_created_but_whose_answer_was_lost_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def created_but_asked_again(uri: str, data: bytes) -> bool:
        assert create(uri, data)
        return create(uri, data)

    uri = str(tmp_path / "lock.json")
    monkeypatch.setattr(module, "create", created_but_asked_again)
    with RunLock(uri, heartbeat=60) as lock:
        lock.check()
    assert not Path(uri).exists()
