"""Storage for the tests of this folder: a folder of this machine, or a bucket of an S3 server on loopback."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from jobs.demo.server import s3_server

PAGE = 5  # how much of a listing the server gives at once, so that listings come in pages as large ones do


@pytest.fixture(scope="session")
def _s3_environment() -> Iterator[dict[str, str]]:
    """One server for all tests; this process knows of it only while a test module asks for ``s3``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(PAGE))
        before = dict(os.environ)
        with s3_server("bucket", "other"):
            wanted = {name: value for name, value in os.environ.items() if before.get(name) != value}
            for name in wanted:
                patch.delenv(name)
            for name in before.keys() & wanted.keys():
                patch.setenv(name, before[name])
            yield wanted


@pytest.fixture(scope="module")
def s3(_s3_environment: dict[str, str]) -> Iterator[str]:
    """The address of a server with the buckets ``bucket`` and ``other``; this process's S3 clients go to it."""
    S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _s3_environment.items():
            patch.setenv(name, value)
        yield _s3_environment["AWS_ENDPOINT_URL"]
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder or prefix that no other test uses."""
    if request.param == "local":
        return str(tmp_path / "place")
    request.getfixturevalue("s3")
    return f"s3://bucket/{uuid.uuid4().hex}"
