"""Denied one by one, or locked out: who is asked before it is decided, and what follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from jobs.access import AllowList
from jobs.audit import breaker as module
from jobs.audit.breaker import IN_A_ROW, Breaker, Image, place_of
from jobs.audit.fetch import FetchError
from jobs.storage import StorageAccessError

BASE = "s3://bucket/lists"


class Known:
    """A registry in this process."""

    def __init__(self, **images: Image):
        self.images = {f"s3://{name}": image for name, image in images.items()}

    def __getattr__(self, name: str) -> Any:
        class Method:
            remote = {
                "read": self.images.__setitem__,
                "readable": lambda: self.images,
            }[name]

        return Method


class Store:
    """Answers for the storage: the error of a URI, bytes where none is given. asked: whoever was asked for."""

    def __init__(self, **errors: str):
        self.errors, self.asked = errors, []  # type: ignore[var-annotated]

    def __call__(self, uri: str, allowed: AllowList, max_bytes: int, version: str | None = None) -> None:
        self.asked.append((uri, version))
        code = self.errors.get(uri.rpartition("/")[2], self.errors.get("everything", "too_many_bytes"))
        raise FetchError(code, "said the storage", 1)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    one = Store()
    monkeypatch.setattr(module, "fetch", one)
    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    return one


def breaker(known: Known | None = None, elsewhere: Iterable[Image] = ()) -> Breaker:
    return Breaker(AllowList.of(f"{BASE}/list.csv", []), known or Known(), lambda: elsewhere)


def denied(one: Breaker, count: int, prefix: str = "denied-", code: str = "access_denied") -> None:
    for n in range(count):
        one.saw((f"{prefix}{n}", None), code, "AccessDenied")


def test_nothing_is_asked_while_nothing_is_doubtful(store: Store) -> None:
    one = breaker()
    for code in (None, "missing_object", "object_changed", "not_allowed", "too_many_bytes"):
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
    with pytest.raises(StorageAccessError, match=r"s3://bucket: .* the last: denied-\d+: AccessDenied; check cred"):
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


def test_a_storage_that_does_not_answer_is_not_asked_for_more(store: Store) -> None:
    one = breaker(elsewhere=[("x", None)])
    denied(one, 2, code="timeout")
    with pytest.raises(StorageAccessError):
        one.end()
    assert store.asked == []


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("a/b.png", "s3://bucket"),
        ("s3://bucket/lists/a.png", "s3://bucket"),
        ("s3://second/a.png", "s3://second"),
        ("s3://second", "s3://second"),
        ("http://host:80/a", "http://host:80"),
        ("/data/a.png", "local files"),
        ("file:///data/a.png", "local files"),
    ],
)
def test_place_of(uri: str, place: str) -> None:
    assert place_of(uri, BASE) == place
    assert place_of("a.png", "/data/lists") == "local files"
