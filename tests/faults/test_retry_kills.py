"""The driver of ``retry-failed``, really killed at every point, with results on a disk and on S3 (``make faults``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from jobs.audit import exits
from jobs.demo.server import s3_server
from jobs.listing import listing
from jobs.storage import upload
from tests.bundles import write_random_bundle
from tests.faults.cluster import running_cluster
from tests.faults.conftest import POINT, REACHED
from tests.faults.night import KILLED, OPTIONS, STORAGES, Ground, Retry
from tests.faults.points import RETRYING, Case
from tests.faults.proxy import Fault, faulty_server
from tests.faults.reader import Reader, Rows
from tests.faults.test_campaign import Tell, named
from tests.jobs.audit.conftest import write_archive

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

DENIED = ("003.png", "011.png", "016.jpg")


@dataclass
class Retried:
    """Runs with rows whose error has passed. before: their rows. contents: every file of such a run's output."""

    ground: Ground
    before: Rows
    contents: dict[str, bytes]

    def night(self, name: str = "") -> Retry:
        """The retry of such a run, which has not begun."""
        night = Retry(self.ground, self.ground.night(name).output)
        night.restore(self.contents)
        return night


@pytest.fixture(scope="module", params=STORAGES)
def retried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retried]:
    """Images are on S3, where three of them were denied; what comes of them is on a disk or on S3."""
    root = tmp_path_factory.mktemp("retry")
    write_archive(root / "archive")
    write_random_bundle(root / "bundle", threshold=0.7)
    with s3_server("line") as endpoint, faulty_server(endpoint) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
        for entry in listing(str(root)):
            upload(Path(entry.uri), f"s3://line/{entry.relative_path}")
        top = str(root / "out") if request.param == "local" else "s3://line/out"
        with running_cluster() as cluster:
            options = [{"7": "10"}.get(option, option) for option in OPTIONS]
            places = ("s3://line/archive/manifest.csv", "s3://line/bundle", top)
            ground = Ground(cluster, request.param, *places, options)
            server.faults[:] = [Fault("denied", rf"/images/{name}", times=None) for name in DENIED]
            failed = ground.night("failed")
            code, said = failed.wait(failed.start())
            assert code == exits.COMMITTED, said
            server.faults.clear()
            begun = Retried(ground, failed.rows(), failed.snapshot())
            ground.measure(begun.night("undisturbed"))
            assert sum(row not in begun.before for row in ground.reference.rows) == len(DENIED)
            yield begun
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("case", RETRYING, ids=named)
def test_a_killed_retry_goes_on(retried: Retried, case: Case, record_property: Tell) -> None:
    record_property(POINT, f"{retried.ground.storage}: {case.name}")
    night, after = retried.night(), retried.ground.reference.rows
    with Reader(night.output, retried.before, after) as reader:
        for order in case.starts:
            code, said = night.struck(order)
            assert code == KILLED, said
        record_property(REACHED, True)
        assert (night.rows() == after, reader.look()) == (case.published, 1)
        code, said = night.wait(night.start())
        assert code == exits.COMMITTED, said
        night.check(reader)
    assert [retry["version"] for retry in night.record()["retries"]] == [2]
