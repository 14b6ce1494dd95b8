"""Storage: whole writes, exclusive creation, listings and typed refusals, on a local disk and on S3 alike."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import fsspec
import pytest
from botocore.exceptions import ClientError
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from jobs import storage
from jobs.listing import Entry, listing, names_below
from jobs.listing import names as names_in
from jobs.storage import create, delete, download, exists, filesystem, read_bytes, reading, upload, write_bytes
from jobs.storage_errors import StorageAccessError, access
from jobs.uris import is_local, join, normal, parent, path_of, scheme_of
from tests.jobs.conftest import PAGE

NAMES = [
    "plain.png", "two words.png", "a#b.png", "a?b.png", "a?b=c&d.png", "%41.png", "%2e%2e.png", "ünïcode.png",
    "e\u0301.png", "日本.png", "a::b.png", "simplecache::s3.png", "*[x]?.png", "+plus.png", "&amp;.png", "~tilde.png",
    "back\\slash.png", "'quote\".png", "...", ".hidden",
]  # fmt: skip

# Connections that are refused are asked for once only: the waits between are botocore's business, not ours.
QUICK = {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 2, "retries": {"total_max_attempts": 1}}}


def names(uri: str) -> list[str]:
    return [entry.relative_path for entry in listing(uri)]


def everything(place: str) -> list[str]:
    """Every file that really is there, hidden ones too, asked without the code under test."""
    if is_local(place):
        return sorted(str(p.relative_to(place)) for p in Path(place).rglob("*") if not p.is_dir())
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/")
    return sorted(each["Key"].removeprefix(prefix + "/") for page in pages for each in page.get("Contents", []))


def test_write_replaces_the_whole_object_and_leaves_nothing_else(place: str) -> None:
    uri = join(place, "shards", "shard-000001.parquet")
    write_bytes(uri, b"long" * 50_000)
    assert read_bytes(uri) == b"long" * 50_000
    write_bytes(uri, b"short")
    assert read_bytes(uri) == b"short"
    write_bytes(uri, b"")
    assert read_bytes(uri) == b""
    assert everything(place) == ["shards/shard-000001.parquet"]


def test_upload_replaces_the_whole_object_and_leaves_nothing_else(place: str, tmp_path: Path) -> None:
    local, back = tmp_path / "from me", tmp_path / "back"
    uri = join(place, "results", "audit.parquet")
    for content in (b"first" * 40_000, b"second", b""):
        local.write_bytes(content)
        upload(local, uri)
        download(uri, back)
        assert back.read_bytes() == content == read_bytes(uri)
    assert everything(place) == ["results/audit.parquet"]
    assert local.exists()


@pytest.mark.parametrize("writer", ["write_bytes", "upload"])
def test_a_glob_never_sees_what_is_being_written(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    target = folder / "audit.parquet"
    before: list[tuple[list[str], list[str]]] = []
    replace = os.replace

    def look(source: str, destination: str) -> None:
        before.append(([p.name for p in folder.glob("*.parquet")], [p.suffix for p in folder.iterdir()]))
        assert Path(source).read_bytes() == b"rows"
        assert os.path.dirname(source) == os.path.dirname(destination)  # a rename between disks is no rename
        replace(source, destination)

    monkeypatch.setattr(os, "replace", look)
    if writer == "write_bytes":
        write_bytes(str(target), b"rows")
    else:
        (tmp_path / "made").write_bytes(b"rows")
        upload(tmp_path / "made", str(target))
    assert before == [([], [".tmp"])]
    assert [p.name for p in folder.iterdir()] == ["audit.parquet"]


def test_a_reader_sees_the_old_or_the_new_object_and_never_a_part(place: str) -> None:
    uri = join(place, "a.parquet")
    versions = [bytes([n]) * 300_000 for n in range(1, 6)]
    write_bytes(uri, versions[0])
    done = threading.Event()

    def keep_writing() -> None:
        for version in versions * 4:
            write_bytes(uri, version)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(keep_writing)
        seen = []
        while not done.is_set():
            seen.append(read_bytes(uri))
        writing.result()
    assert set(seen) <= set(versions)


def test_a_write_that_fails_keeps_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "run.json")
    write_bytes(uri, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(uri, b"new")
    assert read_bytes(uri) == b"old"


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(str(tmp_path / "run.json"), b"new")
    assert everything(str(tmp_path)) == []


def test_create_is_exclusive(place: str) -> None:
    uri = join(place, "deep", "lock.json")
    assert create(uri, b"first") is True
    assert create(uri, b"second") is False
    assert read_bytes(uri) == b"first"
    delete(uri)
    assert create(uri, b"third") is True
    assert read_bytes(uri) == b"third"
    assert everything(place) == ["deep/lock.json"]


def s3_error(code: str, status: int, **more: str) -> Exception:
    said = {"Error": {"Code": code, "Message": code, **more}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(said, "PutObject"))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "error",
    [
        s3_error("PreconditionFailed", 412, Condition="If-None-Match"),
        pytest.param(
            s3_error("PreconditionFailed", 412),
        ),
        pytest.param(
            s3_error("ConditionalRequestConflict", 409),
        ),
    ],
    ids=["AWS", "others", "conflict"],
)
def test_what_servers_say_to_the_second_who_creates(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(storage, "filesystem", lambda uri: SimpleNamespace(pipe_file=refuse))
    assert create("s3://bucket/lock.json", b"second") is False


def test_of_two_who_create_at_once_one_does(place: str) -> None:
    barrier = threading.Barrier(2)

    def one(uri: str, content: bytes) -> bool:
        barrier.wait()
        return create(uri, content)

    with ThreadPoolExecutor(2) as pool:
        for turn in range(20):
            uri = join(place, f"lock-{turn}.json")
            contents = [b"a" * 500, b"b" * 500]
            got = list(pool.map(one, [uri, uri], contents))
            assert sorted(got) == [False, True]
            assert read_bytes(uri) == contents[got.index(True)]


def test_what_create_makes_on_a_disk_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    content = b"x" * 4_000_000

    def first_sight(path: Path) -> int:
        while True:
            try:
                return len(path.read_bytes())
            except FileNotFoundError:
                continue

    seen = []
    with ThreadPoolExecutor(1) as pool:
        for turn in range(20):
            path = tmp_path / f"{turn}.json"
            looking = pool.submit(first_sight, path)
            assert create(str(path), content)
            seen.append(looking.result())
    assert set(seen) == {len(content)}


def test_deleting_what_is_not_there_does_nothing(place: str) -> None:
    write_bytes(join(place, "kept"), b"1")
    delete(join(place, "absent"))
    delete(join(place, "no", "folder", "absent"))
    delete(join(place, "kept"))
    delete(join(place, "kept"))
    assert everything(place) == []


def test_exists(place: str) -> None:
    uri = join(place, "a", "b.png")
    assert not exists(uri)
    write_bytes(uri, b"")
    assert exists(uri)
    assert not exists(uri + "x")
    assert not exists(uri[:-1])
    delete(uri)
    assert not exists(uri)


def test_absent_objects_are_not_found(place: str, tmp_path: Path) -> None:
    write_bytes(join(place, "there"), b"1")
    for uri in (join(place, "absent"), join(place, "there", "below"), join(place, "no", "folder")):
        if is_local(place) and uri.endswith("below"):
            continue  # ENOTDIR on a disk
        with pytest.raises(FileNotFoundError):
            read_bytes(uri)
        with pytest.raises(FileNotFoundError):
            download(uri, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_itself(place: str, name: str) -> None:
    uri, content = join(place, "in", name), name.encode()
    write_bytes(uri, content)
    assert everything(place) == [f"in/{name}"]
    assert read_bytes(uri) == content
    assert exists(uri)
    (entry,) = listing(place)
    assert (entry.uri, entry.relative_path, entry.size) == (uri, f"in/{name}", len(content))
    assert read_bytes(entry.uri) == content
    assert create(uri, b"other") is False
    delete(uri)
    assert everything(place) == []


def test_listing(place: str) -> None:
    contents = {
        "b.png": b"12",
        "a/z.png": b"",
        "a/deep/er/x.png": b"12345",
        "a.png": b"1",
        "a b/c.png": b"123",
        "B.png": b"1234",
    }
    for name, data in contents.items():
        write_bytes(join(place, name), data)
    write_bytes(place + "-secret/s.png", b"a neighbour whose name begins the same way")
    found = list(listing(place))
    assert [e.relative_path for e in found] == sorted(contents)
    assert [e.uri for e in found] == [f"{place}/{name}" for name in sorted(contents)]
    assert {e.relative_path: e.size for e in found} == {name: len(data) for name, data in contents.items()}
    if is_local(place):
        assert {e.etag for e in found} == {None}
    else:
        assert [e.etag for e in found] == [
            hashlib.md5(contents[e.relative_path], usedforsecurity=False).hexdigest() for e in found
        ]
    for entry in found:
        assert entry.last_modified is not None and entry.last_modified.tzinfo is not None
        assert abs(datetime.now(UTC) - entry.last_modified) < timedelta(minutes=2)
    assert list(listing(place + "/")) == found
    assert names(join(place, "a")) == ["deep/er/x.png", "z.png"]
    assert sorted(names_below(place)) == sorted(names_below(place + "/")) == sorted(contents)
    assert sorted(names_below(join(place, "a"))) == ["deep/er/x.png", "z.png"]


def test_a_listing_is_of_now(place: str) -> None:
    for name in ("1", "2", "3"):
        write_bytes(join(place, name), b"")
        assert names(place)[-1] == name
    delete(join(place, "2"))
    assert names(place) == ["1", "3"]


def test_listings_of_nothing_are_empty(place: str) -> None:
    assert list(listing(place)) == list(names_below(place)) == []
    write_bytes(join(place, "file"), b"1")
    assert list(names_below(join(place, "fi"))) == []
    assert list(listing(join(place, "absent"))) == []
    assert list(listing(join(place, "file"))) == []
    assert list(listing(join(place, "fi"))) == []


def test_a_listing_of_empty_folders_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert list(listing(str(tmp_path))) == []


def test_a_local_listing_reads_one_folder_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["a-b/1.png", "a.png", "a/1.png", "a/b/1.png", "a/b.png", "ab", "nowhere.png"]
    for name in wanted[:-1]:
        write_bytes(str(tmp_path / name), name.encode())
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "absent")
    (tmp_path / "z.png").symlink_to(tmp_path / "a" / "b.png")
    opened, scandir = [], os.scandir

    def noted(path: str) -> Any:
        if path.endswith("a/b"):
            raise PermissionError(13, "Permission denied", path)
        opened.append(path)
        return scandir(path)

    found = [(entry.relative_path, entry.size) for entry in listing(str(tmp_path))]
    assert found == [*((name, len(name)) for name in sorted(wanted)[:-1]), ("nowhere.png", 0), ("z.png", 7)]
    monkeypatch.setattr(os, "scandir", noted)
    entries = listing(str(tmp_path))
    assert next(entries).relative_path == "a-b/1.png"
    assert opened == [str(tmp_path), str(tmp_path / "a-b")]
    with pytest.raises(StorageAccessError, match="a/b"):  # what cannot be read is not nothing
        list(entries)


def test_a_listing_across_pages_of_the_server_is_whole(s3: str) -> None:
    client = boto3.client("s3")
    wanted = sorted(f"{n % 3}/{n}.png" for n in range(3 * PAGE + 1))
    for name in wanted:
        client.put_object(Bucket="other", Key=f"many/{name}", Body=b"")
    first = client.list_objects_v2(Bucket="other", Prefix="many/")
    assert (first["IsTruncated"], len(first["Contents"])) == (True, PAGE)
    assert names("s3://other/many") == wanted


def test_the_marker_of_a_folder_on_s3_is_no_object(s3: str) -> None:
    client = boto3.client("s3")
    for key in ("marked/", "marked/sub/", "marked/sub/a.png"):
        client.put_object(Bucket="other", Key=key, Body=b"")
    assert [name for name in names("s3://other/marked") if name.endswith(".png")] == ["sub/a.png"]
    assert "" not in names("s3://other/marked")


@pytest.mark.parametrize(
    "call",
    [
        lambda uri, _: read_bytes(uri),
        lambda uri, _: write_bytes(uri, b"x"),
        lambda uri, _: create(uri, b"x"),
        lambda uri, _: list(listing(uri)),
        lambda uri, _: list(listing(parent(uri))),
        lambda uri, _: names_in(parent(uri)),
        lambda uri, _: names_in(join(uri, "deep")),
        lambda uri, local: download(uri, local),
        lambda uri, local: upload(Path(__file__), uri),
    ],
    ids=["read", "write", "create", "list", "list bucket", "names of bucket", "names", "download", "upload"],
)
def test_an_absent_bucket_is_no_access(s3: str, tmp_path: Path, call: Callable[[str, Path], Any]) -> None:
    with pytest.raises(StorageAccessError, match=r"s3://no-such-bucket.*bucket does not exist"):
        call("s3://no-such-bucket/a.png", tmp_path / "local")


REFUSED = [
    lambda: read_bytes("s3://bucket/kept"),
    lambda: read_bytes("s3://bucket/absent"),
    lambda: write_bytes("s3://bucket/new", b"x"),
    lambda: create("s3://bucket/new", b"x"),
    lambda: exists("s3://bucket/kept"),
    lambda: delete("s3://bucket/kept"),
    lambda: list(listing("s3://bucket")),
]


@pytest.fixture
def strict_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Gives a function that turns to other credentials, on a server that now checks them."""
    write_bytes("s3://bucket/kept", b"1")

    def authenticate(unchecked: str) -> None:
        request = urllib.request.Request(
            f"{s3}/moto-api/reset-auth",
            data=unchecked.encode(),
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        urllib.request.urlopen(request).read()

    def use(key: str, secret: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        S3FileSystem.clear_instance_cache()
        authenticate("0")

    yield use
    authenticate("inf")
    monkeypatch.undo()
    S3FileSystem.clear_instance_cache()
    assert read_bytes("s3://bucket/kept") == b"1"
    assert not exists("s3://bucket/new")


def test_an_unknown_key_is_no_access(strict_s3: Callable[[str, str], None]) -> None:
    strict_s3("AKIAUNKNOWNUNKNOWN00", "secret-of-nobody")
    for call in REFUSED:
        with pytest.raises(StorageAccessError, match="s3://bucket") as caught:
            call()
        assert "secret-of-nobody" not in str(caught.value)


def test_a_wrong_secret_and_a_missing_permission_are_no_access(strict_s3: Callable[[str, str], None]) -> None:
    iam = boto3.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    strict_s3(key["AccessKeyId"], key["SecretAccessKey"])
    for call in REFUSED:
        with pytest.raises(StorageAccessError):
            call()
    strict_s3(key["AccessKeyId"], "not-the-secret")
    for call in REFUSED:
        with pytest.raises(StorageAccessError):
            call()


def test_no_credentials_at_all_is_no_access(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageAccessError, match="NoCredentialsError"):
            read_bytes("s3://bucket/kept")
    finally:
        S3FileSystem.clear_instance_cache()


def test_a_server_that_is_not_there_is_no_access(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_S3_OPTIONS", {**QUICK, "endpoint_url": "http://127.0.0.1:9"})
    for call in REFUSED:
        with pytest.raises(StorageAccessError, match=r"s3://bucket.*127\.0\.0\.1:9"):
            call()


def test_a_local_folder_that_may_not_be_read_is_no_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(type(filesystem(str(tmp_path))), "cat_file", refuse)
    with pytest.raises(StorageAccessError, match="permission denied"):
        read_bytes(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://bucket/key", "s3"),
        ("S3://bucket/key", "s3"),
        ("s3a://bucket/key", "s3a"),
        ("HTTPS://host/", "https"),
        ("git+ssh://x", "git+ssh"),
        ("file:///a", "file"),
        ("FILE:///a", "file"),
        ("/a/b", "file"),
        ("a/b", "file"),
        ("", "file"),
        (".", "file"),
        ("://x", "file"),
        ("s3:/bucket", "file"),
        ("s3:bucket", "file"),
        ("/a/b://c", "file"),
        ("a b://c", "file"),
        ("simplecache::s3://bucket/key", "file"),
        ("zip://a.png::s3://bucket/b.zip", "zip"),
    ],
)
def test_scheme_of(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme
    assert is_local(uri) == (scheme == "file")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a/../b/./c", "/b/c"),
        ("/a//b", "/a/b"),
        ("file:///a/b/", "/a/b"),
        ("/", "/"),
        ("/a::b", "/a::b"),
        ("/a b#c?d%20", "/a b#c?d%20"),
        ("s3://bucket/key", "bucket/key"),
        ("s3://bucket/key/", "bucket/key"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/", "bucket"),
        ("S3://Bucket/Key", "Bucket/Key"),
        ("s3://bucket/a::b#c?d%20", "bucket/a::b#c?d%20"),
        ("s3://bucket/a//b/../c", "bucket/a//b/../c"),
        ("http://host/a/?q=1#f", "http://host/a/?q=1#f"),
        pytest.param(
            "FILE:///a",
            "/a",
        ),
    ],
)
def test_path_of(uri: str, path: str) -> None:
    assert path_of(uri) == path


def test_relative_paths_are_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("a/b", "./a/b", "a/b/", "a/c/../b"):
        assert path_of(uri) == normal(uri) == f"{tmp_path}/a/b"
    assert parent("manifest.csv") == str(tmp_path)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/", "/a"),
        ("/", "/"),
        ("file:///a/b", "/a/b"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://bucket/a//b", "s3://bucket/a//b"),
        ("https://host/a/", "https://host/a"),
    ],
)
def test_normal(uri: str, expected: str) -> None:
    assert normal(uri) == expected
    assert normal(normal(uri)) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("/a", "b"), "/a/b"),
        (("/a/", "b", "c.png"), "/a/b/c.png"),
        (("/", "b"), "/b"),
        (("s3://bucket", "a", "b"), "s3://bucket/a/b"),
        (("s3://bucket/", "a b#?"), "s3://bucket/a b#?"),
        (("/a",), "/a"),
    ],
)
def test_join(parts: tuple[str, ...], expected: str) -> None:
    assert join(*parts) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b/c.csv", "/a/b"),
        ("/a/b/", "/a"),
        ("file:///a/b", "/a"),
        ("s3://bucket/a/b.csv", "s3://bucket/a"),
        ("s3://bucket/b.csv", "s3://bucket"),
        ("s3://bucket/a/", "s3://bucket"),
        pytest.param(
            "/a",
            "/",
        ),
    ],
)
def test_parent(uri: str, expected: str) -> None:
    assert parent(uri) == expected


@pytest.mark.parametrize("uri", ["nosuch://a/b", "s4://bucket/key", "gs://bucket/key", "abfs://c@a/key"])
def test_a_scheme_that_nothing_can_read_is_named(uri: str) -> None:
    scheme = uri.partition(":")[0]
    for call in (filesystem, read_bytes, exists, delete, lambda uri: list(listing(uri)), lambda u: write_bytes(u, b"")):
        with pytest.raises(ValueError, match=f"no storage for scheme '{scheme}'"):
            call(uri)


def test_entry_is_what_a_manifest_is_built_from() -> None:
    assert list(Entry.__dataclass_fields__) == ["uri", "relative_path", "size", "etag", "last_modified"]


def test_names_are_those_directly_in_a_folder(place: str) -> None:
    for name in ("b.json", "a/deep.png", "a/deeper/still.png", ".hidden"):
        write_bytes(join(place, name), b"x")
    assert names_in(place) == [".hidden", "a", "b.json"]
    assert names_in(join(place, "a")) == ["deep.png", "deeper"]
    assert names_in(join(place, "none")) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("report.html", "text/html"), ("a #1.png", "image/png"), ("run.json", "application/json"), ("_SUCCESS", None)],
)
def test_a_browser_is_told_what_an_object_is(s3: str, name: str, kind: str | None) -> None:
    write_bytes(f"s3://bucket/kinds/{name}", b"x")
    told = storage.filesystem("s3://bucket").call_s3("head_object", Bucket="bucket", Key=f"kinds/{name}")
    assert told["ContentType"] == kind or (kind is None and told["ContentType"] == "binary/octet-stream")


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left = ["runs/.shard-000001-{}.tmp", "runs/deep/.audit-{}.tmp", "runs/deep/.audit-2-{}.tmp"]
    kept = ["runs/.shard-000001-12.tmp", "runs/shard-{}.tmp", "runs/.audit-{}.parquet", "other/.audit-{}.tmp"]
    for name in (*left, *kept):
        write_bytes(str(tmp_path / name.format("0f" * 16)), b"x")
    storage.sweep(str(tmp_path / "runs"), lambda stem: stem == "audit")
    names_left = [name.format("0f" * 16) for name in (*kept, left[0], left[2])]
    assert names(str(tmp_path)) == sorted(names_left)
    storage.sweep(str(tmp_path / "runs"))
    assert names(str(tmp_path)) == sorted(name.format("0f" * 16) for name in kept)
    write_bytes(str(tmp_path / left[1].format("0f" * 16)), b"x")
    storage.sweep(str(tmp_path / "runs"), but="deep")
    assert names(str(tmp_path)) == sorted(name.format("0f" * 16) for name in (*kept, left[1]))
    storage.sweep(str(tmp_path / "none"))
    storage.sweep("s3://nowhere/at-all")


SCRATCHING = """
import sys
from jobs import storage
with storage.scratch() as folder:
    (folder / "rows").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_scratch_folders_of_killed_processes_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(storage, "SCRATCH_SECONDS", -1.0)
    folders, processes = [], []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRATCHING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
        processes.append(process)
    killed, alive = processes
    try:
        killed.kill()
        killed.wait()
        (tmp_path / "line-audit-other").mkdir()
        assert folders[0].exists() and folders[1].exists()
        storage._sweep_scratch.cache_clear()
        with storage.scratch() as ours:
            assert sorted(tmp_path.iterdir()) == sorted([folders[1], ours, tmp_path / "line-audit-other"])
        alive.communicate("", timeout=30)
        assert list(tmp_path.iterdir()) == [tmp_path / "line-audit-other"]
    finally:
        alive.kill()
        alive.wait()
        storage._sweep_scratch.cache_clear()


def test_time_limits_are_those_of_fsspecs_settings(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filesystem("s3://bucket").config_kwargs["read_timeout"] == 60
    monkeypatch.setitem(
        fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 7, "retries": {"max_attempts": 99}}}
    )
    for retrying, most in ((True, {"max_attempts": 5}), (False, {"total_max_attempts": 1})):
        found = filesystem("s3://bucket", retrying=retrying).config_kwargs
        assert (found["read_timeout"], found["connect_timeout"]) == (7, 10)
        assert found["retries"] == {"mode": "standard", **most}


@pytest.mark.parametrize("error", [PermissionError("x"), OSError("x")])
def test_what_a_storage_refuses_while_it_is_read_in_pieces_is_no_access(
    s3: str, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes("s3://bucket/pieces", b"1")

    def refuse() -> None:
        with reading("s3://bucket/pieces") as file:
            assert file.read(1) == b"1"
            raise error

    with pytest.raises(StorageAccessError):
        refuse()


def test_what_a_storage_says_is_told_without_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mArKeDsEcReT")
    with pytest.raises(StorageAccessError) as caught, access("s3://bucket/a"):
        raise PermissionError("Authorization: AWS4 Signature=1 of mArKeDsEcReT")
    assert "mArKeDsEcReT" not in "".join(traceback.format_exception(caught.value))
    assert "Signature" not in str(caught.value)
