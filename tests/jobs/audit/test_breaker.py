"""Denied one by one, or locked out: who is asked before it is decided, and what follows."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anomaly_core.preprocess import DEFAULT, Limits
from jobs.access import AllowList
from jobs.audit import breaker as module
from jobs.audit import fetch as fetching
from jobs.audit import proofs
from jobs.audit.breaker import ASKED_IN_SILENCE, FEW, IN_A_ROW, SILENT_SECONDS, Breaker
from jobs.audit.config import AuditConfig
from jobs.audit.fetch import FetchError
from jobs.audit.load import Load, LoadSettings
from jobs.audit.pace import Pace
from jobs.audit.proofs import Image, images_read, place_of
from jobs.storage_errors import StorageAccessError
from manifests.freeze import freeze_file

BASE = "s3://bucket/lists"
STALLED = AuditConfig.model_fields["stall_timeout"].default


class Known:
    """A registry in this process."""

    def __init__(self, begin: int = 1, **images: Image):
        self.images = {f"s3://{name}": image for name, image in images.items()}
        self.attempt = begin

    def __getattr__(self, name: str) -> Any:
        class Method:
            remote = {
                "read": self.images.__setitem__,
                "readable": lambda: self.images,
                "begin": lambda shard: self.attempt,
            }[name]

        return Method


class Store:
    """Answers for the storage: the error of a URI, bytes where none is given. asked: whoever was asked for."""

    def __init__(self, **errors: str):
        self.errors, self.asked = errors, []  # type: ignore[var-annotated]

    def __call__(self, uri: str, allowed: AllowList, max_bytes: int, version: str | None, pace: Pace) -> None:
        self.asked.append((uri, version))
        code = self.errors.get(uri.rpartition("/")[2], self.errors.get("everything", "too_many_bytes"))
        raise FetchError(code, "said the storage", 1)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    one = Store()
    monkeypatch.setattr(module, "fetch", one)
    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    monkeypatch.setattr(module, "_refused", {})
    return one


def breaker(known: Known | None = None, elsewhere: Iterable[Image] = (), base: str = BASE) -> Breaker:
    return Breaker(AllowList.of(f"{base}/list.csv", []), known or Known(), lambda: elsewhere)


def denied(one: Breaker, count: int, prefix: str = "denied-", code: str = "access_denied") -> None:
    for n in range(count):
        one.saw((f"{prefix}{n}", None), code, "AccessDenied")


def test_nothing_is_asked_while_nothing_is_doubtful(store: Store) -> None:
    one = breaker()
    for code in (
        None,
        *["missing_object"] * 99,
        "fetch_failed",
        "object_changed",
        "not_allowed",
        "too_many_bytes",
        None,
    ):
        one.saw(("a", None), code, "")
    one.end()
    assert store.asked == []


@pytest.mark.parametrize("code", ["access_denied", "throttled", "timeout", "connection_cut", "server_error"])
def test_one_doubtful_row_is_let_go_after_an_image_that_was_read_is_read_again(store: Store, code: str) -> None:
    one = breaker()
    one.saw(("good", "v7"), None, None)
    denied(one, 1, code=code)
    one.saw(("later", "v8"), None, None)
    one.end()
    assert store.asked == [("later", "v8")]


@pytest.mark.parametrize("now", ["access_denied", "throttled", "timeout", "connection_cut", "server_error"])
@pytest.mark.parametrize("count", [1, IN_A_ROW - 1])
def test_an_image_that_was_read_and_is_refused_now_locks_out(store: Store, now: str, count: int) -> None:
    store.errors["good"] = now
    one = breaker()
    one.saw(("good", None), None, None)
    denied(one, count)
    with pytest.raises(StorageAccessError, match=r"s3://bucket: .* the last: denied-\d+: AccessDenied; check that"):
        one.end()


def test_many_in_a_row_do_not_wait_for_the_end(store: Store) -> None:
    store.errors["good"] = "access_denied"
    one = breaker()
    one.saw(("good", None), None, None)
    denied(one, IN_A_ROW - 1)
    assert store.asked == []
    with pytest.raises(StorageAccessError):
        denied(one, 1)


def test_many_that_are_denied_one_by_one_are_rows(store: Store) -> None:
    one = breaker()
    one.saw(("good", None), None, None)
    denied(one, 5 * IN_A_ROW + 1)
    one.end()
    assert len(store.asked) == 6


def test_what_another_worker_read_is_proof_too(store: Store) -> None:
    known = Known(bucket=("theirs", None))
    one = breaker(known)
    denied(one, 3)
    one.end()
    assert store.asked == [("theirs", None)]
    store.errors["theirs"] = "access_denied"
    denied(one, 1)
    with pytest.raises(StorageAccessError):
        one.end()


def test_what_was_read_is_told_once_a_shard(store: Store) -> None:
    known = Known()
    one = breaker(known)
    one.saw(("first", None), None, None)
    one.saw(("second", None), None, None)
    assert known.images == {"s3://bucket": ("first", None)}


def test_a_proof_that_was_deleted_since_shows_that_the_storage_answers_us(store: Store) -> None:
    store.errors["good"] = "missing_object"
    one = breaker()
    one.saw(("good", None), None, None)
    denied(one, 2)
    one.end()


def test_without_proof_the_first_images_of_other_shards_are_tried(store: Store) -> None:
    store.errors.update({"x": "access_denied", "y": "missing_object"})
    one = breaker(elsewhere=[("x", None), ("s3://other/w", None), ("y", None), ("z", "v1")])
    denied(one, IN_A_ROW)
    assert store.asked == [("x", None), ("y", None), ("z", "v1")]


def test_a_run_that_can_read_nothing_is_locked_out(store: Store) -> None:
    store.errors["everything"] = "access_denied"
    one = breaker(elsewhere=[("x", None)])
    denied(one, 1)
    with pytest.raises(StorageAccessError):
        one.end()


def test_a_few_rows_of_a_second_storage_are_rows_and_many_are_a_locked_door(store: Store) -> None:
    store.errors["everything"] = "access_denied"
    for count in (1, IN_A_ROW - 1):
        one = breaker()
        one.saw(("good", None), None, None)
        denied(one, count, "s3://second/")
        one.end()
    one = breaker()
    one.saw(("good", None), None, None)
    with pytest.raises(StorageAccessError, match="s3://second: "):
        denied(one, IN_A_ROW, "s3://second/")


def test_a_storage_that_does_not_answer_is_asked_for_little_more(store: Store) -> None:
    store.errors["everything"] = "timeout"
    one = breaker(elsewhere=[(f"x{n}", None) for n in range(9)])
    denied(one, 2, code="timeout")
    with pytest.raises(StorageAccessError):
        one.end()
    assert store.asked == [(f"x{n}", None) for n in range(ASKED_IN_SILENCE)]
    store.asked.clear()
    one = breaker(Known(bucket=("good", None)), elsewhere=[("x", None)])
    denied(one, 2, code="timeout")
    with pytest.raises(StorageAccessError):
        one.end()
    assert store.asked == [("good", None)]


@pytest.mark.parametrize("code", ["access_denied", "throttled", "timeout", "connection_cut", "server_error"])
def test_a_row_that_always_fails_is_a_row_though_nothing_else_was_read_in_this_start(store: Store, code: str) -> None:
    """The first image of another shard is the proof, whatever the row's fault is."""
    store.errors["bad"] = code
    one = breaker(elsewhere=[("bad", None), ("good", None)])
    one.saw(("bad", None), code, "")
    one.end()
    assert store.asked == [("bad", None), ("good", None)]


def test_a_proof_that_is_denied_by_itself_now_is_not_the_last_word(store: Store) -> None:
    store.errors["good"] = "access_denied"
    one = breaker(Known(bucket=("good", None)), elsewhere=[("good", None), ("other", None)])
    denied(one, 1)
    one.end()
    assert store.asked == [("good", None), ("other", None)]


# On a disk a file may be missing because the disk is; S3 that says so of a key is there.
DISK = "/data/lists"
SUSPECT = pytest.mark.parametrize(
    ("base", "code"), [(DISK, "missing_object"), (DISK, "fetch_failed"), (BASE, "fetch_failed")]
)


def known_at(base: str) -> Known:
    known = Known()
    known.images["s3://bucket" if base == BASE else base] = ("good", None)
    return known


@SUSPECT
def test_many_in_a_row_that_are_not_there_are_rows_if_the_storage_is(store: Store, base: str, code: str) -> None:
    one = breaker(base=base)
    one.saw(("good", None), None, None)
    denied(one, 3 * IN_A_ROW - 1, code=code)
    one.saw(("good", None), None, None)
    one.end()
    assert store.asked == [("good", None)] * 2


@SUSPECT
@pytest.mark.parametrize("now", ["fetch_failed", "timeout", "connection_cut", "access_denied"])
def test_a_storage_that_went_away_ends_the_run(store: Store, base: str, code: str, now: str) -> None:
    """A disk that is unmounted says that no file is there: the one that was read is not there either."""
    store.errors["everything"] = "missing_object" if (base, now) == (DISK, "fetch_failed") else now
    one = breaker(elsewhere=[("x", None)], base=base)
    one.saw(("good", None), None, None)
    denied(one, IN_A_ROW - 1, code=code)
    with pytest.raises(StorageAccessError, match="the last: denied-0: AccessDenied"):
        denied(one, 1, code=code)
    one = breaker(known_at(base), base=base)
    denied(one, 1, code=code)
    with pytest.raises(StorageAccessError):
        one.end()


@SUSPECT
def test_images_that_are_not_there_are_rows_though_the_known_one_was_deleted(
    store: Store, base: str, code: str
) -> None:
    store.errors["good"] = "missing_object"
    one = breaker(known_at(base), elsewhere=[("good", None), ("other", None)], base=base)
    denied(one, IN_A_ROW, code=code)
    one.end()
    assert store.asked == [("good", None)] + ([("other", None)] if base == DISK else [])


def test_where_nothing_was_read_yet_the_rows_that_come_may_be_the_proof(store: Store) -> None:
    store.errors["everything"] = "missing_object"
    one = breaker(elsewhere=[("x", None)], base=DISK)
    denied(one, 2 * IN_A_ROW, code="missing_object")
    one.saw(("good", None), None, None)
    one.end()
    assert store.asked == []


def test_where_nothing_can_be_read_few_missing_images_are_rows_and_many_are_a_disk_that_is_not_there(
    store: Store,
) -> None:
    store.errors["everything"] = "missing_object"
    one = breaker(elsewhere=[("x", None)], base=DISK)
    denied(one, IN_A_ROW - 2, code="missing_object")
    one.end()
    one = breaker(elsewhere=[("x", None)], base=DISK)
    denied(one, IN_A_ROW - 1, code="missing_object")
    with pytest.raises(StorageAccessError):
        one.end()


def test_a_disk_that_is_there_is_no_proof_for_another(store: Store) -> None:
    store.errors["everything"] = "missing_object"
    allowed = AllowList.of(f"{DISK}/list.csv", ["/mnt/a", "/mnt/b"])
    one = Breaker(allowed, Known(), list)
    for n in range(IN_A_ROW):
        one.saw((f"/mnt/a/{n}.png", None), None, None)
        one.saw((f"/mnt/b/{n}.png", None), "missing_object", "no such file")
    with pytest.raises(StorageAccessError, match=r"^/mnt/b: "):
        one.end()


def test_who_was_refused_by_other_shards_too_does_not_ask_them_for_every_shard(store: Store) -> None:
    store.errors["everything"] = "access_denied"
    for _ in range(3):
        one = breaker(Known(second=("s3://second/good", None)), elsewhere=[("x", None), ("y", None)])
        denied(one, 1)
        one.end()
    assert store.asked == [("x", None), ("y", None)]


class Clock:
    """The time of a process, which passes when a test says so."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.now, self.pace = 1000.0, Pace()
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(fetching, "_PACE", self.pace)

    def passes(self, seconds: float, one: Breaker, *waiting: str) -> None:
        """One second after the other, in which these images are waited for."""
        for _ in range(round(seconds)):
            self.now += 1
            one.waits(lambda: [(uri, None) for uri in waiting])


@pytest.fixture
def clock(store: Store) -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        yield Clock(patch)


def test_a_storage_that_says_nothing_is_asked_by_the_clock(store: Store, clock: Clock) -> None:
    """With the usual settings twenty rows take an hour and a half, and the run is stalled before."""
    store.errors["everything"] = "timeout"
    one = breaker(Known(bucket=("good", None)))
    clock.passes(SILENT_SECONDS - 1, one, "a")
    assert store.asked == []
    with pytest.raises(StorageAccessError, match=r"s3://bucket: .* no answer for 300 s"):
        clock.passes(1, one, "a")
    assert store.asked == [("good", None)]
    assert SILENT_SECONDS + module.ASK_SECONDS < 0.4 * STALLED


def test_where_nothing_was_read_another_image_is_asked_by_the_clock(store: Store, clock: Clock) -> None:
    store.errors["everything"] = "timeout"
    with pytest.raises(StorageAccessError, match="no answer"):
        clock.passes(SILENT_SECONDS, breaker(), "a", "b", "c")
    assert store.asked == [("c", None)]
    clock.passes(3 * SILENT_SECONDS, breaker(), "a")  # only one: it may hang by its own fault
    assert store.asked == [("c", None)]


def test_few_rows_of_a_second_silent_storage_are_waited_for_to_their_end(store: Store, clock: Clock) -> None:
    """A camera's server that is switched off, beside a storage that is well."""
    store.errors["everything"] = "timeout"
    rows = [f"http://camera/{n}" for n in range(FEW + 1)]
    clock.passes(5 * SILENT_SECONDS, breaker(Known(bucket=("good", None))), *rows[:FEW])
    assert store.asked == []
    with pytest.raises(StorageAccessError, match=r"http://camera: .* no answer"):
        clock.passes(SILENT_SECONDS, breaker(Known(bucket=("good", None))), *rows)


@pytest.mark.parametrize("answer", ["too_many_bytes", "access_denied", "missing_object"])
def test_one_image_that_hangs_does_not_end_the_run(store: Store, clock: Clock, answer: str) -> None:
    store.errors["good"] = answer
    one = breaker(Known(bucket=("good", None)))
    clock.passes(4 * SILENT_SECONDS, one, "a", "b")
    assert store.asked == [("good", None)] * 4


def test_each_storage_that_is_waited_for_is_asked(store: Store, clock: Clock) -> None:
    store.errors["theirs"] = "timeout"
    one = breaker(Known(bucket=("good", None), second=("s3://second/theirs", None)))
    with pytest.raises(StorageAccessError, match="s3://second: "):
        clock.passes(SILENT_SECONDS, one, "a", "s3://second/b")
    clock.passes(SILENT_SECONDS, breaker(Known(bucket=("good", None))), "a")


def test_who_gets_answers_asks_nobody(store: Store, clock: Clock) -> None:
    one = breaker(Known(bucket=("good", None)))
    for _ in range(5):
        clock.passes(SILENT_SECONDS - 1, one, "a")
        clock.pace.good()
        clock.passes(SILENT_SECONDS - 1, one, "a")
        clock.pace.heard()
    assert store.asked == []


def test_an_ask_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was mounted hard gives neither bytes nor an error."""
    back = threading.Event()
    monkeypatch.setattr(module, "fetch", lambda *_, **__: back.wait())
    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    monkeypatch.setattr(module, "ASK_SECONDS", 0.1)
    one = breaker(Known(bucket=("good", None)))
    denied(one, 1)
    try:
        with pytest.raises(StorageAccessError):
            one.end()
    finally:
        back.set()


def test_the_proof_waits_for_no_other_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All places of the process are taken by requests that get no answer."""
    pace = Pace()
    monkeypatch.setattr(fetching, "_PACE", pace)
    monkeypatch.setattr(module, "ASK_SECONDS", 10)
    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    (tmp_path / "good.png").write_bytes(b"image")
    known = Known()
    known.images[str(tmp_path)] = (str(tmp_path / "good.png"), None)
    one = Breaker(AllowList.of(str(tmp_path / "list.csv"), []), known, lambda: ())
    with pace.request() as began:
        for _ in range(9):
            pace.overloaded(began)
            began = time.monotonic()
        assert int(pace.limit) == 1
        denied(one, 1, f"{tmp_path}/denied-")
        one.end()


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_loader_that_gets_no_answer_gives_its_shard_up_in_time(
    attempt: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its twenty rows alone it would take 100 s: five attempts of a second each, one after the other."""
    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    monkeypatch.setattr(module, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(module, "ASK_SECONDS", 1.0)
    monkeypatch.setattr(fetching, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 0.01)
    pace = Pace()
    pace.limit = 1.0
    monkeypatch.setattr(fetching, "_PACE", pace)
    known = Known(begin=attempt)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        at = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "list.csv").write_text("uri\n" + "".join(f"{at}/{n}.png\n" for n in range(IN_A_ROW + 4)))
        frozen = freeze_file(tmp_path / "list.csv", tmp_path / "frozen", shard_rows=64)
        allowed = AllowList.of(str(tmp_path / "list.csv"), [at])
        load = Load(LoadSettings(str(tmp_path / "frozen"), allowed, Limits(), DEFAULT, 4, 30.0), known)
        shard = frozen.shards[0]
        row = {"shard": [0], "part": [shard.part], "row_group": [0], "rows": [shard.rows]}
        began = time.monotonic()
        with pytest.raises(StorageAccessError, match=f"{at}: .* no answer for 2 s"):
            load(pa.table(row))
        assert time.monotonic() - began < 20


def write_rows(path: Path, rows: list[tuple[str, str | None]]) -> str:
    """A shard, or a table, with these URIs and stages of failure, two rows a group."""
    table = pa.table(
        {
            "uri": [uri for uri, _ in rows],
            "version_id": pa.array([None] * len(rows), pa.string()),
            "error_stage": pa.array([stage for _, stage in rows], pa.string()),
            "pixels": [bytes(1000)] * len(rows),
        }
    )
    pq.write_table(table, path, row_group_size=2)
    return str(path)


def test_images_that_an_earlier_start_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes were there also where decoding failed; files are opened only until every storage has an image."""
    bad = write_rows(tmp_path / "bad", [("m", "manifest"), ("f", "fetch"), ("f2", "fetch")])
    one = write_rows(tmp_path / "one", [("f", "fetch"), ("f2", "fetch"), ("broken", "decode"), ("good", None)])
    two = write_rows(tmp_path / "two", [("again", None), ("s3://second/a", None), ("s3://second/b", None)])
    read = proofs.reading
    opened: list[str] = []
    monkeypatch.setattr(proofs, "reading", lambda uri: opened.append(uri) or read(uri))
    alone, both = AllowList.of(f"{BASE}/list.csv", []), AllowList.of(f"{BASE}/m", ["s3://bucket", "s3://second/x"])
    files = [bad, one, two, str(tmp_path / "absent")]
    assert images_read(files, alone) == {"s3://bucket": ("broken", None)}
    assert opened == [bad, one]
    assert images_read(files, both) == {"s3://bucket": ("broken", None), "s3://second": ("s3://second/a", None)}
    assert images_read([bad], both) == images_read([], both) == {}
    whole = Path(two).read_bytes()
    for damaged in (whole[:-9] + bytes(9), whole[:4] + bytes(range(200)) + whole[204:], b""):
        (tmp_path / "damaged").write_bytes(damaged)
        assert images_read([str(tmp_path / "damaged"), str(tmp_path / "absent"), one], alone) == {
            "s3://bucket": ("broken", None)
        }
    opened.clear()
    assert images_read([bad] * 9999, both) == {}
    assert len(opened) == proofs.MOST_FILES


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("a/b.png", "s3://bucket"),
        ("s3://bucket/lists/a.png", "s3://bucket"),
        ("s3://second/a.png", "s3://second"),
        ("s3://second", "s3://second"),
        ("http://host:80/a", "http://host:80"),
        ("/data/a.png", "/data"),
        ("file:///data/b/../a.png", "/data"),
        ("/data/deep/a.png", "/data/deep"),
        ("/database/a.png", "local files"),
    ],
)
def test_place_of(uri: str, place: str) -> None:
    assert place_of(uri, AllowList.of(f"{BASE}/list.csv", ["/data/", "/data/deep", "s3://bucket"])) == place
    assert place_of("a.png", AllowList.of("/data/lists/list.csv", [])) == "/data/lists"
