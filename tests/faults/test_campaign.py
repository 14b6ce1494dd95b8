"""The driver and every kind of worker, really killed at every point, on a disk and on S3 (``make faults``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from jobs.audit import exits
from jobs.demo.server import s3_server
from jobs.storage import listing, upload
from tests.bundles import write_random_bundle
from tests.faults.cluster import running_cluster
from tests.faults.conftest import POINT, REACHED
from tests.faults.night import KILLED, OPTIONS, Ground, Night
from tests.faults.points import BEGINNING, BEREFT, ENDING, SHARDS_WRITTEN, SURVIVED, WORKING, Case, Storage
from tests.faults.reader import Reader
from tests.jobs.audit.conftest import write_archive

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

STORAGES: tuple[Storage, ...] = ("local", "s3")
Tell = Callable[[str, object], None]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Storage, Ground]]:
    """The same archive and bundle on a disk and on S3, and one Ray for both."""
    root = tmp_path_factory.mktemp("kill")
    write_archive(root / "archive")
    write_random_bundle(root / "bundle", threshold=0.7)
    S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
    with s3_server("line"):
        for entry in listing(str(root)):
            upload(Path(entry.uri), f"s3://line/{entry.relative_path}")
        with running_cluster() as cluster:
            yield {
                storage: Ground(cluster, storage, f"{top}/archive/manifest.csv", f"{top}/bundle", f"{top}/out", OPTIONS)
                for storage, top in zip(STORAGES, (str(root), "s3://line"), strict=True)
            }
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def snapshots() -> dict[Storage, dict[str, bytes]]:
    """What ``prepared`` has made, by storage."""
    return {}


def prepared(night: Night, snapshots: dict[Storage, dict[str, bytes]]) -> None:
    """Make the output what it is when the driver was killed between the last shard and the commit."""
    storage = night.ground.storage
    if storage not in snapshots:
        code, said = night.struck(SHARDS_WRITTEN)
        assert code == KILLED, said
        snapshots[storage] = night.snapshot()
    night.restore(snapshots[storage])


@pytest.fixture(params=STORAGES)
def ground(request: pytest.FixtureRequest, grounds: dict[Storage, Ground]) -> Ground:
    return grounds[request.param]


def named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [*BEGINNING, *WORKING, *ENDING], ids=named)
def test_a_killed_driver_is_resumed(
    ground: Ground, case: Case, snapshots: dict[Storage, dict[str, bytes]], record_property: Tell
) -> None:
    record_property(POINT, f"{ground.storage}: {case.name}")
    night = ground.night("prepared" if case.prepared else "")
    if case.prepared:
        prepared(night, snapshots)
    with Reader(night.output, ground.reference.rows) as reader:
        for order in case.starts:
            code, said = night.struck(order)
            assert code == KILLED, said
        record_property(REACHED, True)
        assert reader.look() == int(case.published)
        code, said = night.wait(night.start())
        assert code == exits.COMMITTED, said
        night.check(reader)


def survives(ground: Ground, case: Case, record_property: Tell) -> None:
    """One start in which these kills happen ends as the undisturbed run did."""
    night = ground.night()
    with Reader(night.output, ground.reference.rows) as reader:
        code, said = night.struck(*case.starts)
        record_property(REACHED, True)
        assert code == exits.COMMITTED, said
        night.check(reader)


@pytest.mark.parametrize("case", SURVIVED, ids=named)
def test_a_killed_worker_is_survived(ground: Ground, case: Case, record_property: Tell) -> None:
    record_property(POINT, f"{ground.storage}: {case.name}")
    survives(ground, case, record_property)


def test_without_its_registry_a_run_fails_and_is_resumed(ground: Ground, record_property: Tell) -> None:
    record_property(POINT, f"{ground.storage}: {BEREFT.name}")
    night = ground.night()
    with Reader(night.output, ground.reference.rows) as reader:
        code, said = night.struck(*BEREFT.starts)
        record_property(REACHED, True)
        assert code == exits.FAILED, said
        assert reader.look() == 0
        code, said = night.wait(night.start())
        assert code == exits.COMMITTED, said
        night.check(reader)
