"""Fetching one image: what is retried and for how long, what is given up, and the caps."""

from __future__ import annotations

import contextlib
import errno
import gzip
import http.client
import os
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
import urllib3.exceptions
from aiobotocore.response import AioReadTimeoutError
from aiohttp.client_reqrep import ConnectionKey
from botocore import exceptions as boto
from fsspec.exceptions import FSTimeoutError
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from jobs import storage
from jobs.access import AllowList
from jobs.audit import fetch as module
from jobs.audit.errors import PASSING, classify
from jobs.audit.fetch import ATTEMPTS, FIRST_WAIT_SECONDS, THROTTLED_ATTEMPTS, Fetched, FetchError, fetch
from jobs.audit.pace import MOST, Pace
from jobs.storage import filesystem, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join, parent, path_of
from tests.faults.proxy import Fault, faulty_server


def client_error(code: str, status: int = 400) -> boto.ClientError:
    said = {
        "Error": {"Code": code, "Message": f"the server said {code}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(said, "GetObject")


# How S3 says it, and the word of ours.
CODES = {
    "SlowDown": "throttled",
    "503": "throttled",
    "429": "throttled",
    "Throttling": "throttled",
    "ThrottlingException": "throttled",
    "TooManyRequests": "throttled",
    "RequestLimitExceeded": "throttled",
    "InternalError": "server_error",
    "500": "server_error",
    "502": "server_error",
    "504": "server_error",
    "ServiceUnavailable": "server_error",
    "RequestTimeout": "timeout",
    "NoSuchKey": "missing_object",
    "NoSuchVersion": "missing_object",
    "404": "missing_object",
    "AccessDenied": "access_denied",
    "403": "access_denied",
    "AllAccessDisabled": "access_denied",
    "InvalidObjectState": "access_denied",
    "InvalidArgument": "fetch_failed",
    "TemporaryRedirect": "server_error",
    "KMS.DisabledException": "access_denied",
    "KMS.NotFoundException": "access_denied",
    "KeyTooLongError": "fetch_failed",
    "NeverHeardOf": "fetch_failed",
}
CREDENTIALS = [
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "TokenRefreshRequired", "RequestExpired",
]  # fmt: skip
# Said of a bucket, a region, an account or a clock: no image of it can be had.
OF_ALL = [
    "NoSuchBucket", "PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    "RequestTimeTooSkewed", "AccountProblem",
]  # fmt: skip
KEY = ConnectionKey("host", 443, True, True, None, None, None)
URL = "http://host/bucket/key"
RAISED: list[tuple[BaseException, str]] = [
    (boto.ReadTimeoutError(endpoint_url=URL), "timeout"),
    (boto.ConnectTimeoutError(endpoint_url=URL), "timeout"),
    (AioReadTimeoutError(endpoint_url=URL), "timeout"),
    (TimeoutError("timed out"), "timeout"),
    (TimeoutError(), "timeout"),
    (FSTimeoutError(), "timeout"),
    (aiohttp.ServerTimeoutError(), "timeout"),
    (boto.EndpointConnectionError(endpoint_url=URL), "connection_cut"),
    (boto.ConnectionClosedError(endpoint_url=URL), "connection_cut"),
    (boto.HTTPClientError(error="reset"), "connection_cut"),
    (boto.ResponseStreamingError(error="cut"), "connection_cut"),
    (boto.IncompleteReadError(actual_bytes=5, expected_bytes=9), "connection_cut"),
    (urllib3.exceptions.IncompleteRead(5, 9), "connection_cut"),
    (http.client.IncompleteRead(b"12345", 4), "connection_cut"),
    (aiohttp.ClientPayloadError("not all the bytes"), "connection_cut"),
    (aiohttp.ServerDisconnectedError(), "connection_cut"),
    (aiohttp.ClientOSError(104, "reset"), "connection_cut"),
    (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), "connection_cut"),
    (ConnectionResetError(104, "reset by peer"), "connection_cut"),
    (ConnectionAbortedError(), "connection_cut"),
    (BrokenPipeError(), "connection_cut"),
    (ConnectionRefusedError(), "connection_cut"),
    (FileNotFoundError(2, "No such file"), "missing_object"),
    (IsADirectoryError(21, "Is a directory"), "missing_object"),
    (PermissionError(13, "Permission denied"), "access_denied"),
    (boto.SSLError(endpoint_url=URL, error="certificate verify failed"), "connection_cut"),
    (boto.ProxyConnectionError(proxy_url=URL), "connection_cut"),
    (ssl.SSLCertVerificationError("certificate verify failed"), "connection_cut"),
    (OSError(errno.EIO, "Input/output error"), "connection_cut"),
    (OSError(errno.ESTALE, "Stale file handle"), "connection_cut"),
    (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), "connection_cut"),
    (OSError(errno.EMFILE, "Too many open files"), "connection_cut"),
    (OSError(errno.EHOSTDOWN, "Host is down"), "connection_cut"),
    (OSError(errno.ENXIO, "No such device or address"), "fetch_failed"),
    (OSError(36, "File name too long"), "fetch_failed"),
    (NotADirectoryError(20, "Not a directory"), "fetch_failed"),
    (ValueError("whatever"), "fetch_failed"),
    (KeyError("x"), "fetch_failed"),
]


@pytest.mark.parametrize("code", CODES)
def test_what_s3_says_has_one_word(code: str) -> None:
    bare = client_error(code)
    translated = translate_boto_error(client_error(code))  # what s3fs raises for it
    assert translated is not bare
    assert [classify(bare), classify(translated)] == [CODES[code]] * 2


@pytest.mark.parametrize(("error", "code"), RAISED, ids=[type(e).__name__ + str(n) for n, (e, _) in enumerate(RAISED)])
def test_what_the_network_and_the_disk_say_has_one_word(error: BaseException, code: str) -> None:
    assert classify(error) == code


STATUSES = {
    429: "throttled",
    503: "throttled",
    500: "server_error",
    507: "server_error",
    520: "server_error",
    401: "access_denied",
    403: "access_denied",
    404: "missing_object",
    418: "fetch_failed",
}


@pytest.mark.parametrize("status", STATUSES)
def test_http_statuses_have_one_word(status: int) -> None:
    assert classify(aiohttp.ClientResponseError(None, (), status=status)) == STATUSES[status]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code"), [(503, "server_error"), (599, "server_error"), (429, "throttled"), (403, "access_denied")]
)
def test_a_name_that_is_not_known_is_judged_by_its_status(status: int, code: str) -> None:
    error = client_error("XOwnWord", status)
    assert [classify(error), classify(translate_boto_error(error))] == [code] * 2


def test_what_passes_is_what_is_retried() -> None:
    assert {"throttled", "timeout", "connection_cut", "server_error"} == PASSING
    assert {*CODES.values(), *(code for _, code in RAISED)} >= PASSING


class Source:
    """Stands for the storage: raises these, one after the other, then gives the bytes."""

    def __init__(self, errors: list[BaseException], data: bytes = b"image"):
        self.errors, self.data, self.asked = list(errors), data, []  # type: ignore[var-annotated]

    def __call__(self, uri: str, count: int, conditions: dict[str, str]) -> bytes:
        self.asked.append((uri, count))
        if self.errors:
            raise self.errors.pop(0)
        return self.data[:count]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are not waited."""
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    return waited


def image(source: Source, monkeypatch: pytest.MonkeyPatch, cap: int = 100) -> Fetched:
    monkeypatch.setattr(module, "_read", source)
    return fetch("s3://bucket/a.png", AllowList.of("s3://bucket/list.csv", []), cap)


@pytest.mark.parametrize("failures", range(ATTEMPTS))
@pytest.mark.parametrize(
    "error",
    [
        translate_boto_error(client_error("SlowDown", 503)),
        translate_boto_error(client_error("InternalError", 500)),
        boto.ReadTimeoutError(endpoint_url=URL),
        aiohttp.ClientPayloadError("not all the bytes"),
    ],
    ids=["SlowDown", "InternalError", "ReadTimeout", "cut"],
)
def test_what_passes_is_asked_for_again(
    error: BaseException, failures: int, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source([error] * failures)
    assert image(source, monkeypatch) == Fetched(b"image", failures + 1)
    assert source.asked == [("s3://bucket/a.png", 101)] * (failures + 1)
    assert len(waits) == failures
    for number, waited in enumerate(waits, 1):
        assert 0 <= waited <= FIRST_WAIT_SECONDS * 2**number


def test_the_longest_waits_are_these(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    image(Source([client_error("SlowDown")] * 7), monkeypatch)
    assert waits == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0])


def test_the_waits_differ_from_one_image_to_the_next(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        image(Source([client_error("SlowDown")]), monkeypatch)
    assert len(set(waits)) > 15
    assert max(waits) - min(waits) > 0.1  # full jitter: from nothing to the whole wait


@pytest.mark.parametrize("code", ["SlowDown", "InternalError", "RequestTimeout"])
def test_what_does_not_pass_in_time_is_given_up(code: str, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source([client_error(code)] * 99)
    with pytest.raises(FetchError) as caught:
        image(source, monkeypatch)
    most = THROTTLED_ATTEMPTS if code == "SlowDown" else ATTEMPTS
    assert (caught.value.code, caught.value.attempts) == (CODES[code], most)
    assert code in caught.value.message
    assert (len(source.asked), len(waits)) == (most, most - 1)


@pytest.mark.parametrize("code", [code for code, word in CODES.items() if word not in PASSING])
def test_what_does_not_pass_is_asked_for_once(code: str, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source([translate_boto_error(client_error(code))] * 99)
    with pytest.raises(FetchError) as caught:
        image(source, monkeypatch)
    assert (caught.value.code, caught.value.attempts) == (CODES[code], 1)
    assert (len(source.asked), waits) == (1, [])


def test_another_error_on_the_second_attempt_counts_as_such(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FetchError) as caught:
        image(Source([client_error("SlowDown"), FileNotFoundError(2, "gone")]), monkeypatch)
    assert (caught.value.code, caught.value.attempts) == ("missing_object", 2)


@pytest.mark.parametrize("code", CREDENTIALS)
def test_refused_credentials_end_the_run(code: str, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (client_error(code), translate_boto_error(client_error(code))):
        source = Source([error])
        with pytest.raises(StorageAccessError, match=f"credentials refused \\({code}\\)"):
            image(source, monkeypatch)
        assert (len(source.asked), waits) == (1, [])


@pytest.mark.parametrize("code", OF_ALL)
def test_what_is_said_of_a_whole_storage_ends_the_run(
    code: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (client_error(code), translate_boto_error(client_error(code))):
        source = Source([error])
        with pytest.raises(StorageAccessError, match=f"refuses every image \\({code}\\); check bucket, region"):
            image(source, monkeypatch)
        assert (len(source.asked), waits) == (1, [])


@pytest.mark.parametrize(
    "error",
    [
        boto.NoCredentialsError(),
        boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        boto.CredentialRetrievalError(provider="sso", error_msg="expired"),
        boto.TokenRetrievalError(provider="sso", error_msg="expired"),
        boto.UnauthorizedSSOTokenError(),
        boto.SSOTokenLoadError(error_msg="expired"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_credentials_that_cannot_be_had_end_the_run(
    error: BaseException, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageAccessError, match=type(error).__name__):
        image(Source([error]), monkeypatch)
    assert waits == []


def test_what_is_not_allowed_is_never_asked_for(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source([])
    monkeypatch.setattr(module, "_read", source)
    with pytest.raises(FetchError) as caught:
        fetch("http://169.254.169.254/", AllowList.of("s3://bucket/list.csv", []), 100)
    assert (caught.value.code, caught.value.attempts, source.asked) == ("not_allowed", 0, [])


@pytest.mark.parametrize("uri", ["s3://[x/a.png", "s3://buck\u2100t/a.png"])
def test_a_name_that_cannot_be_parsed_costs_its_row_only(uri: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(uri, AllowList.of("s3://bucket/list.csv", []), 100)
    assert caught.value.code == "not_allowed"


def test_a_long_message_is_cut(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError) as caught:
        image(Source([ValueError("x" * 10_000)]), monkeypatch)
    assert len(caught.value.message) == 300


def test_fetched_bytes_and_the_cap(place: str) -> None:
    data = bytes(range(256)) * 8
    write_bytes(join(place, "a.png"), data)
    allowed = AllowList.of(join(place, "list.csv"), [])
    for cap in (len(data), len(data) + 1, 10 * len(data)):
        assert fetch("a.png", allowed, cap) == Fetched(data, 1)
    for cap in (len(data) - 1, 10, 1):
        with pytest.raises(FetchError) as caught:
            fetch("a.png", allowed, cap)
        assert (caught.value.code, caught.value.attempts) == ("too_many_bytes", 1)
        assert f"cap of {cap:,} bytes" in caught.value.message


def test_no_more_than_the_cap_and_one_byte_is_read(place: str) -> None:
    write_bytes(join(place, "big"), b"x" * 2_000_000)
    assert module._read(join(place, "big"), 11, {}) == b"x" * 11


def test_an_empty_object_is_no_bytes(place: str) -> None:
    write_bytes(join(place, "empty.png"), b"")
    assert fetch("empty.png", AllowList.of(join(place, "list.csv"), []), 100) == Fetched(b"", 1)


def test_one_byte(place: str) -> None:
    write_bytes(join(place, "a.png"), b"1")
    assert fetch("a.png", AllowList.of(join(place, "list.csv"), []), 1) == Fetched(b"1", 1)


@pytest.mark.parametrize("name", ["absent.png", "folder", "folder/absent.png", ""])
def test_what_is_not_an_object_is_missing(place: str, name: str) -> None:
    write_bytes(join(place, "folder", "there"), b"1")
    with pytest.raises(FetchError) as caught:
        fetch(name, AllowList.of(join(place, "list.csv"), []), 100)
    assert (caught.value.code, caught.value.attempts) == ("missing_object", 1)


@pytest.mark.parametrize("name", ["a b#c?.png", "%41.png", "a::b.png", "日本.png", "*[x].png"])
def test_names_mean_themselves(place: str, name: str) -> None:
    write_bytes(join(place, name), name.encode())
    assert fetch(join(place, name), AllowList.of(join(place, "list.csv"), []), 100).data == name.encode()


def test_many_threads_get_their_own_bytes(place: str) -> None:
    for n in range(30):
        write_bytes(join(place, f"{n}.png"), f"image {n}".encode() * 1000)
    allowed = AllowList.of(join(place, "list.csv"), [])
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda n: fetch(f"{n}.png", allowed, 10**6).data, list(range(30)) * 3))
    assert got == [f"image {n}".encode() * 1000 for n in range(30)] * 3


DATA = b"0123456789" * 100


class _Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # one request a connection: aiohttp quietly repeats what a used one cuts off

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range"))  # type: ignore[attr-defined]
        step = self.server.script.pop(0) if self.server.script else "ok"  # type: ignore[attr-defined]
        self.close_connection = True
        if step == "reset":
            return
        status, code = {"ok": (206, ""), "cut": (206, ""), "SlowDown": (503, "SlowDown")}.get(step, (0, ""))
        if step in ("ok", "cut"):
            body = DATA
        else:
            status = status or {"AccessDenied": 403, "ExpiredToken": 400, "NoSuchKey": 404, "InternalError": 500}[step]
            code = code or step
            body = f"<Error><Code>{code}</Code><Message>scripted</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if step == "cut" else body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def scripted(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server that answers as told, asked by clients that try once: the retries seen are ours."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Scripted)
    server.script, server.asked = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    once = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5}
    monkeypatch.setattr(storage, "_S3_OPTIONS", {"use_listings_cache": False, "config_kwargs": once})
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    yield server
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_a_real_connection(scripted: Any, waits: list[float]) -> None:
    """What a server does to a connection, through aiohttp, botocore and s3fs, is what the tables above say."""
    allowed = AllowList.of("s3://bucket/list.csv", [])
    scripts: list[tuple[list[str], tuple[str, int]]] = [
        ([], ("", 1)),
        (["cut"], ("", 2)),
        (["reset"] * 2, ("", 2)),  # aiohttp itself asks once more
        (["SlowDown", "SlowDown"], ("", 3)),
        (["InternalError"], ("", 2)),
        (["cut", "SlowDown", "InternalError", "cut"], ("", 5)),
        (["cut"] * 5, ("connection_cut", 5)),
        (["reset"] * 10, ("connection_cut", 5)),
        (["SlowDown"] * 8, ("throttled", 8)),
        (["InternalError"] * 5, ("server_error", 5)),
        (["NoSuchKey"], ("missing_object", 1)),
        (["AccessDenied"], ("access_denied", 1)),
        (["SlowDown", "AccessDenied"], ("access_denied", 2)),
    ]
    for script, (code, attempts) in scripts:
        scripted.script[:], scripted.asked[:] = script, []
        if code:
            with pytest.raises(FetchError) as caught:
                fetch("a.png", allowed, 5000)
            assert (caught.value.code, caught.value.attempts) == (code, attempts), script
        else:
            assert fetch("a.png", allowed, 5000) == Fetched(DATA, attempts), script
        assert scripted.asked == ["bytes=0-5000"] * (attempts + script.count("reset") // 2), script
    scripted.script[:] = ["SlowDown", "ExpiredToken"]
    with pytest.raises(StorageAccessError, match="ExpiredToken"):
        fetch("a.png", allowed, 5000)


def test_the_uri_of_a_bucket_is_no_object(s3: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch("s3://bucket", AllowList.of("s3://bucket/list.csv", []), 100)
    assert caught.value.attempts == 1


def test_a_bucket_that_is_not_there_ends_the_run(s3: str) -> None:
    with pytest.raises(StorageAccessError, match=r"s3://absent-bucket/a.png: .*NoSuchBucket"):
        fetch("s3://absent-bucket/a.png", AllowList.of("s3://bucket/list.csv", ["s3://absent-bucket"]), 100)


def test_a_link_that_is_changed_leads_nowhere_new(tmp_path: Path) -> None:
    """What is opened is what was checked: the path with its links resolved."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"mine")
    (tmp_path / "in" / "b.png").symlink_to("a.png")
    allowed = AllowList.of(str(tmp_path / "in" / "list.csv"), [])
    target = allowed.resolve("b.png")
    assert parent(target) == str(tmp_path / "in") and path_of(target).endswith("/a.png")
    assert filesystem(target).cat_file(target) == b"mine"


def etag_of(key: str) -> str:
    return str(boto3.client("s3").head_object(Bucket="bucket", Key=key)["ETag"])


def test_an_object_is_read_only_with_the_etag_that_the_manifest_names(s3: str) -> None:
    write_bytes("s3://bucket/tagged.png", b"first")
    allowed, first = AllowList.of("s3://bucket/list.csv", []), etag_of("tagged.png")
    assert first.startswith('"')
    for etag in (first, first.strip('"'), f" {first} ", "", None):
        assert fetch("tagged.png", allowed, 100, None, etag) == Fetched(b"first", 1)
    write_bytes("s3://bucket/tagged.png", b"second")
    for etag in (first, first.strip('"')):
        with pytest.raises(FetchError) as caught:
            fetch("tagged.png", allowed, 100, None, etag)
        assert (caught.value.code, caught.value.attempts) == ("object_changed", 1)
        assert "overwritten since the manifest was made" in caught.value.message
    assert fetch("tagged.png", allowed, 100, None, etag_of("tagged.png")).data == b"second"


@pytest.mark.parametrize("etag", ["*\r\nX-Injected: 1", 'a", "b', "é", "a b", "a" * 50 + "\0"])
def test_what_no_object_can_have_as_its_etag_is_not_asked_for(s3: str, etag: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch("tagged.png", AllowList.of("s3://bucket/list.csv", []), 100, None, etag)
    assert (caught.value.code, caught.value.attempts) == ("object_changed", 0)


def test_a_version_is_not_held_against_an_etag(s3: str) -> None:
    client = boto3.client("s3")
    client.put_bucket_versioning(Bucket="other", VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(Bucket="other", Key="a.png", Body=b"old")
    client.put_object(Bucket="other", Key="a.png", Body=b"new")
    allowed = AllowList.of("s3://other/list.csv", [])
    assert fetch("a.png", allowed, 100, old["VersionId"], "0" * 32).data == b"old"
    assert fetch("a.png", allowed, 100, None, None).data == b"new"


def test_a_file_has_no_etag(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    assert fetch("a.png", AllowList.of(str(tmp_path / "list.csv"), []), 100, None, "0" * 32) == Fetched(b"1", 1)


def test_an_overload_slows_this_process_down(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    monkeypatch.setattr(module, "_PACE", pace)
    image(Source([client_error("SlowDown")]), monkeypatch)
    assert pace.limit == 2.0  # alone: halved to one, and one added for the good answer
    monkeypatch.setattr(module, "_PACE", pace := Pace())
    image(Source([aiohttp.ClientPayloadError("cut")]), monkeypatch)
    assert pace.limit == MOST


def test_a_body_that_comes_in_drops_is_given_up(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No silence is longer than the client's time limit, and yet it would take for ever."""
    write_bytes("s3://bucket/drops.png", b"x" * 1000)
    monkeypatch.setattr(module, "READ_SECONDS", 0.3)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with faulty_server(s3) as server:
        server.faults.append(Fault("drops", "drops", times=None, seconds=0.1))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        S3FileSystem.clear_instance_cache()
        with pytest.raises(FetchError) as caught:
            fetch("drops.png", AllowList.of("s3://bucket/list.csv", []), 5000)
        S3FileSystem.clear_instance_cache()
    assert (caught.value.code, caught.value.attempts) == ("timeout", 2)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "pipe":
        os.mkfifo("a.png")
    else:
        socket.socket(socket.AF_UNIX).bind("a.png")
    with pytest.raises(FetchError) as caught:
        fetch("a.png", AllowList.of(str(tmp_path / "list.csv"), []), 100)
    assert (caught.value.code, caught.value.attempts) == ("fetch_failed", 1)


@pytest.mark.parametrize("what", ["the file", "a folder above it"])
def test_a_link_put_in_its_place_after_the_check_is_not_followed(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("in/sub", "secret"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").write_bytes(folder.encode())
    allowed = AllowList.of(str(tmp_path / "in" / "list.csv"), [])
    resolve = AllowList.resolve

    def then_swap(self: AllowList, uri: str) -> str:
        target = resolve(self, uri)
        (tmp_path / "in" / "sub").rename(tmp_path / "in" / "away")
        if what == "the file":
            (tmp_path / "in" / "sub").mkdir()
            (tmp_path / "in" / "sub" / "a.png").symlink_to(tmp_path / "secret" / "a.png")
        else:
            (tmp_path / "in" / "sub").symlink_to(tmp_path / "secret")
        return target

    monkeypatch.setattr(AllowList, "resolve", then_swap)
    with pytest.raises(FetchError) as caught:
        fetch("sub/a.png", allowed, 100)
    assert caught.value.code == {"the file": "fetch_failed", "a folder above it": "not_allowed"}[what]


class _Http(BaseHTTPRequestHandler):
    """A web server that heeds a range, or does not; packs its answer, or sends it without end."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"], self.headers["Accept-Encoding"]))  # type: ignore[attr-defined]
        if self.path.endswith("/status"):
            self.send_response(302)
            self.send_header("Location", "/secret")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.endswith("/missing"):
            self.send_error(404)
        elif self.path.endswith("/packed"):
            self._send(PACKED, {"Content-Encoding": "gzip"})
        elif self.path.endswith("/empty"):
            self.send_response(416)
            self.end_headers()
        elif self.path.endswith("/endless"):
            self.send_response(200)
            self.send_header("Content-Length", str(BODY))
            self.end_headers()
            with contextlib.suppress(OSError):
                while self.server.sent < BODY:  # type: ignore[attr-defined]
                    self.wfile.write(bytes(2**16))
                    self.server.sent += 2**16  # type: ignore[attr-defined]
        else:
            self._send(DATA, {})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


BODY = 100 * 2**20
PACKED = gzip.compress(bytes(BODY), 1)


@pytest.fixture
def web() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Http)
    server.asked, server.sent = [], 0  # type: ignore[attr-defined]
    server.at = f"http://127.0.0.1:{server.server_address[1]}/ok"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def from_web(web: Any, name: str, cap: int) -> Fetched:
    return fetch(f"{web.at}/{name}", AllowList.of("s3://bucket/list.csv", [web.at]), cap)


def test_a_web_server_is_asked_for_no_more_than_the_cap_and_nothing_packed(web: Any) -> None:
    assert from_web(web, "a.png", len(DATA)) == Fetched(DATA, 1)
    assert from_web(web, "empty", 10) == Fetched(b"", 1)
    assert web.asked == [
        ("/ok/a.png", f"bytes=0-{len(DATA)}", "identity"),
        ("/ok/empty", "bytes=0-10", "identity"),
    ]
    with pytest.raises(FetchError) as caught:
        from_web(web, "missing", 10)
    assert (caught.value.code, caught.value.attempts) == ("missing_object", 1)


@pytest.mark.parametrize("name", ["a.png", "endless", "packed"])
def test_a_server_that_sends_more_than_it_was_asked_for_fills_no_memory(web: Any, name: str) -> None:
    cap = min(len(DATA) - 1, 500)
    tracemalloc.start()
    try:
        with pytest.raises(FetchError) as caught:
            from_web(web, name, cap)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (caught.value.code, caught.value.attempts) == ("too_many_bytes", 1)
    assert peak < 20 * 2**20
    assert web.sent < 50 * 2**20  # what the two ends of a connection hold


def test_what_was_packed_all_the_same_is_unpacked_up_to_the_cap(web: Any) -> None:
    assert from_web(web, "packed", BODY).data == bytes(BODY)


def test_a_redirect_is_not_followed(web: Any) -> None:
    with pytest.raises(FetchError, match="status 302") as caught:
        from_web(web, "status", 100)
    assert (caught.value.code, caught.value.attempts) == ("fetch_failed", 1)
    assert {path for path, _, _ in web.asked} == {"/ok/status"}


def test_a_web_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(FetchError) as caught:
            fetch(f"{at}/a.png", AllowList.of("s3://bucket/list.csv", [at]), 100)
    assert (caught.value.code, caught.value.attempts) == ("timeout", ATTEMPTS)
