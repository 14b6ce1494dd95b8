"""The driver of ``rethreshold``, really killed at every point, with results on a disk and on S3 (``make faults``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from jobs.audit import exits
from jobs.storage import read_bytes, write_bytes
from jobs.uris import join
from tests.faults.conftest import POINT, REACHED
from tests.faults.night import KILLED, STORAGES, Ground, Rethreshold, both_grounds
from tests.faults.points import REDECIDING, Case, Storage
from tests.faults.reader import Reader, Rows
from tests.faults.test_campaign import Tell, named
from tests.jobs.audit.conftest import GOOD

pytestmark = [pytest.mark.slow, pytest.mark.campaign]


@dataclass
class Decided:
    """Committed runs that are to be decided again. before: their rows. contents: every file of such a run's output."""

    ground: Ground
    before: Rows
    contents: dict[str, bytes]

    def night(self, name: str = "") -> Rethreshold:
        """The rethreshold of such a run, which has not begun."""
        night = Rethreshold(self.ground, self.ground.night(name).output)
        night.restore(self.contents)
        return night


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Storage, Ground]]:
    """The same archive and bundle on a disk and on S3."""
    with both_grounds(tmp_path_factory.mktemp("decide")) as found:
        yield found


@pytest.fixture(scope="module", params=STORAGES)
def decided(request: pytest.FixtureRequest, grounds: dict[Storage, Ground]) -> Decided:
    """On each of them."""
    whole = grounds[request.param]
    first = whole.night("first")
    code, said = first.wait(first.start())
    assert code == exits.COMMITTED, said
    given = json.loads(read_bytes(join(whole.bundle, "thresholds.json")))
    write_bytes(join(whole.root, "thresholds.json"), json.dumps(dict.fromkeys(given, 0.62)).encode())
    begun = Decided(whole, first.rows(), first.snapshot())
    whole.measure(begun.night("undisturbed"))
    changed = [row for row in whole.reference.rows if row not in begun.before]
    assert len(changed) == GOOD  # every scored row has another threshold
    return begun


@pytest.mark.parametrize("case", REDECIDING, ids=named)
def test_a_killed_rethreshold_goes_on(decided: Decided, case: Case, record_property: Tell) -> None:
    record_property(POINT, f"{decided.ground.storage}: {case.name}")
    night, after = decided.night(), decided.ground.reference.rows
    with Reader(night.output, decided.before, after) as reader:
        for order in case.starts:
            code, said = night.struck(order)
            assert code == KILLED, said
        record_property(REACHED, True)
        assert (night.rows() == after, reader.look()) == (case.published, 1)
        code, said = night.wait(night.start())
        assert code == exits.COMMITTED, said
        night.check(reader)
    assert [one["version"] for one in night.record()["rethresholds"]] == [2]
