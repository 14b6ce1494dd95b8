"""An archive with every kind of row, a bundle of random weights, and one embedded Ray for the folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import ray
from PIL import Image
from s3fs import S3FileSystem

from jobs.audit.config import AuditConfig, ErrorBudget
from jobs.audit.run import Outcome, audit
from jobs.cluster_session import ray_session
from jobs.demo.server import s3_server
from jobs.listing import listing
from jobs.storage import upload
from tests.bundles import random_pixels, write_random_bundle
from tests.faults.proxy import FaultyServer, faulty_server

GOOD = 17
# Scoring in the extracting actor saves a process that imports torch, seconds an audit. The undisturbed run, which the
# others are held against, has scorers, as have those that tests begin by the command.
DEFAULTS: dict[str, Any] = {
    "run_date": "2026-01-02", "shard_rows": 3, "max_failed": ErrorBudget(count=7), "scoring": "extractor"
}  # fmt: skip


@pytest.fixture(scope="package")
def endpoint(archive: Path, bundle: str) -> Iterator[FaultyServer]:
    """An S3 server with the bucket ``line``, in which archive and bundle are, behind an endpoint that misbehaves on
    demand. This process's environment names it."""
    with pytest.MonkeyPatch.context() as patch, s3_server("line") as address, faulty_server(address) as server:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
        for source, target in ((archive, "archive"), (Path(bundle), "bundle")):
            for entry in listing(str(source)):
                upload(Path(entry.uri), f"s3://line/{target}/{entry.relative_path}")
        yield server
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="package")
def _sessions(endpoint: FaultyServer) -> Iterator[ExitStack]:
    with ExitStack() as sessions:  # inside of the endpoint, because Ray's workers take the environment along
        yield sessions


@pytest.fixture
def ray_cluster(_sessions: ExitStack) -> None:
    """An embedded Ray that the tests of this folder share. A module with its own ends it; then it begins anew."""
    _begin(_sessions)


def _begin(sessions: ExitStack) -> None:
    if not ray.is_initialized():
        sessions.enter_context(ray_session(512 * 2**20))


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle whose threshold lies among the scores of the archive."""
    return str(write_random_bundle(tmp_path_factory.mktemp("bundle") / "bundle", threshold=0.7, references=1))


@pytest.fixture(scope="package")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 readable images, and a manifest of 25 rows: every image once, and eight rows that must fail."""
    root = tmp_path_factory.mktemp("archive")
    write_archive(root)
    return root


def config(archive: Path, bundle: str, output: Path, **settings: Any) -> AuditConfig:
    """An audit of the archive in nine shards, whose seven failures are within its budget."""
    places = {"manifest": str(archive / "manifest.csv"), "bundle": bundle, "output": str(output)}
    return AuditConfig(**(places | DEFAULTS | settings))


def remote_config(**settings: Any) -> AuditConfig:
    """The same audit, from S3 to S3."""
    places = {"manifest": "s3://line/archive/manifest.csv", "bundle": "s3://line/bundle", "output": "s3://line/out"}
    return AuditConfig(**(places | DEFAULTS | settings))


@pytest.fixture(scope="package")
def run(
    _sessions: ExitStack, archive: Path, bundle: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """An audit that nothing disturbed: its output folder, and how it ended. Tests read it and leave it as it is."""
    _begin(_sessions)
    output = tmp_path_factory.mktemp("run")
    return output, audit(config(archive, bundle, output, scoring="actors"))


EXPECTED_FAILURES = {
    "decode/empty_object": 1,
    "decode/html_document": 1,
    "decode/truncated_image": 1,
    "fetch/missing_object": 1,
    "fetch/not_allowed": 2,
    "manifest/duplicate": 1,
    "manifest/empty_uri": 1,
}


def write_archive(root: Path) -> None:
    """Images, broken files, and ``manifest.csv`` with relative URIs and a column of its own."""
    images = root / "images"
    images.mkdir(parents=True)
    for i, pixels in enumerate(random_pixels(GOOD, seed=3)):
        picture = Image.fromarray(pixels).resize((300 + i, 200), Image.Resampling.BICUBIC)
        picture.save(images / f"{i:03d}.{'png' if i % 2 else 'jpg'}")
    (images / "empty.png").write_bytes(b"")
    (images / "page.jpg").write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")
    whole = (images / "000.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    names = [f"images/{i:03d}.{'png' if i % 2 else 'jpg'}" for i in range(GOOD)]
    bad = ["images/empty.png", "images/page.jpg", "images/cut.jpg", "images/none.png", "../outside.png"]
    uris = [*names, *bad, names[4], "", "http://169.254.169.254/latest/meta-data/"]
    lines = ["uri,line,batch,declared_category"]
    lines += [f"{uri},L{i % 3},batch-{i // 10}," for i, uri in enumerate(uris)]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


ROWS = GOOD + 8
