"""The driver and every kind of worker, really killed at every point, on a disk and on S3 (``make faults``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobs.audit import exits
from tests.faults.conftest import POINT, REACHED
from tests.faults.night import KILLED, STORAGES, Ground, Night, both_grounds
from tests.faults.points import BEGINNING, BEREFT, ENDING, SHARDS_WRITTEN, SURVIVED, WORKING, Case, Storage
from tests.faults.reader import Reader

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

Tell = Callable[[str, object], None]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Storage, Ground]]:
    """The same archive and bundle on a disk and on S3, and one Ray for both."""
    with both_grounds(tmp_path_factory.mktemp("kill")) as found:
        yield found


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
