"""Credentials do not get into what is written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from manifests.secrets import SUSPECT, redacted, without_secrets
from tests.manifests.conftest import Freezer

SECRET = "Xq7MARKEDsecretZ9"
WITH = [
    f"s3://AKIAEXAMPLEEXAMPLE00:{SECRET}@bucket/a.png",
    f"s3://key:{SECRET}/with/slashes@bucket/a.png",
    f"s3://{SECRET}@bucket/a.png",
    f"https://user:p@{SECRET}@host/a.png",
    f"HTTP://user:{SECRET}@127.0.0.1:80/a.png",
    f"https://host/a.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={SECRET}&x=1",
    f"https://host/a.png?x-amz-security-token={SECRET}",
    f"https://account.blob/a.png?sv=2024&sig={SECRET}",
    f"https://host/a.png?AWSAccessKeyId=x&Signature={SECRET}",
    f"https://host/a.png?access_token={SECRET}#x",
    f"simplecache::s3://key:{SECRET}@bucket/a.png",
]
WITHOUT = [
    "s3://bucket/a@b.png",
    "s3://bucket/a:b@c.png",
    "s3://bucket/signature=1/a.png",
    "http://host:8080/a@b.png",
    "s3://arn:aws:s3:us-east-1:1:accesspoint/x/a@b.png",
    "line@1/camera:2/a.png",
    "/data/me@here/a.png",
]


@pytest.mark.parametrize("uri", WITH)
def test_no_credential_is_left_in_an_address(uri: str) -> None:
    assert SECRET not in without_secrets(uri)
    assert re.search(SUSPECT, uri, re.IGNORECASE)
    assert "a.png" in without_secrets(uri)


@pytest.mark.parametrize("uri", WITHOUT)
def test_an_address_without_credentials_is_left_as_it_is(uri: str) -> None:
    assert without_secrets(uri) == redacted(uri) == uri


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"{{'Authorization': 'AWS4-HMAC-SHA256 Credential=k/x, SignedHeaders=host, Signature={SECRET}'}}",
        f"headers: x-amz-security-token={SECRET}",
        f"export AWS_SECRET_ACCESS_KEY={SECRET}",
        f'Could not connect to the endpoint URL: "http://me:{SECRET}@host:9000/bucket"',
        f"403, url='https://host/a?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}'",
    ],
)
def test_no_credential_is_left_in_a_message(text: str) -> None:
    assert SECRET not in redacted(text)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_what_the_environment_holds_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    assert redacted(f"the server says {SECRET}!") == "the server says ***!"
    monkeypatch.setenv(name, "e")
    assert redacted("the server") == "the server"


@pytest.mark.parametrize("text", ["://" * 30_000, "://a:" * 20_000, "?sig=" * 20_000, "authorization:" * 7_000])
@pytest.mark.parametrize("function", [without_secrets, redacted])
def test_a_hostile_text_takes_no_time(function: Callable[[str], str], text: str) -> None:
    began = time.process_time()
    function(text)
    assert time.process_time() - began < 2


def test_a_row_with_credentials_is_a_problem_and_they_are_nowhere(frozen_from: Freezer) -> None:
    good = [uri for uri in WITHOUT if "," not in uri]
    frozen = frozen_from("uri\n" + "\n".join([*WITH, *good]) + f"\n{WITH[0]},too,many\n", "m.csv")
    codes = frozen.column("problem_code")
    assert codes == ["credentials_in_uri"] * len(WITH) + [None] * len(good) + ["malformed_row"]
    assert frozen.column("uri")[len(WITH) : -1] == good
    assert frozen.column("uri")[0] == "s3://***@bucket/a.png"
    assert SECRET not in str(frozen.rows)
    assert len(set(frozen.column("image_id"))) == len(codes)


@pytest.mark.parametrize("bad", ["\0", "x" * 5000])
def test_nor_in_what_is_said_of_a_row_with_two_problems(frozen_from: Freezer, bad: str) -> None:
    frozen = frozen_from(f'uri\n"{WITH[0]}{bad}"\n', "m.csv")
    assert frozen.column("problem_code") in (["control_character"], ["uri_too_long"])
    assert SECRET not in str(frozen.rows)
