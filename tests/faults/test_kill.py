"""The driver, a scorer and a writing worker, really killed: the quick part of the campaign, one night on a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.night import DATE, KILLED, Ground, ground_on_disk
from tests.faults.points import PUT, SCORE, SHARD, TABLE, WRITE, Order
from tests.faults.reader import Reader


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground_on_disk(tmp_path_factory.mktemp("kill")) as ground:
        yield ground


@pytest.mark.slow
def test_a_night_in_which_everything_is_killed_once(ground: Ground) -> None:
    night = ground.night()
    with Reader(night.output, ground.reference.rows) as reader:
        code, said = night.struck(
            Order("before", SCORE, nth=2),
            Order("before", PUT, SHARD, nth=2),
            Order("before", PUT, TABLE),
        )
        assert (code, reader.look()) == (KILLED, 0), said
        litter = [Path(name).parent.name for name in night.files() if name.endswith(".tmp")]
        assert litter == [f"run_date={DATE}", "shards"]
        assert night.struck(Order("before", WRITE, "_SUCCESS$"))[0] == KILLED
        assert (reader.look(), night.record()["state"]) == (1, "committed")
        code, said = night.wait(night.start())
        assert code == 0, said
        night.check(reader)
