"""Kills at chosen points and at random instants, with trained weights and images of cameras (``make faults``)."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from anomaly_core.device import resolve_precision
from jobs.audit import exits
from tests.bench import archive
from tests.faults.cluster import running_cluster
from tests.faults.conftest import KILLS, POINT, REACHED
from tests.faults.night import KILLED, PATIENCE_SECONDS, Ground
from tests.faults.points import PUT, ROUTE, SCORE, SHARD, TABLE, WRITE, Case, Order
from tests.faults.reader import Reader
from tests.faults.test_campaign import Tell, named

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.shared]

IMAGES = 48
LEAST_KILLS, SEED = 30, 20261127
# Ray tries tasks and actors again three times at least: more in one start might rightly end it.
WORKERS_A_START = 3
VICTIMS = ("load_shard", "Extract", "Scorer", "write_shard")

POINTS = [
    Case("driver while scoring", (Order("before", SCORE, nth=4, victim="driver"),)),
    Case("extracting actor while routing", (Order("before", ROUTE, nth=4),)),
    Case("writing worker while a shard is being written", (Order("before", PUT, SHARD, nth=2),)),
    Case("driver while the table is being published", (Order("before", PUT, TABLE),)),
    Case("driver while _SUCCESS is being written", (Order("before", WRITE, "_SUCCESS$"),), published=True),
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    root = tmp_path_factory.mktemp("real")
    images = archive.source("png")
    manifest = archive.write_archive(root / "archive", images, IMAGES, "png")
    archive.write_bundle(root / "bundle", images.images, resolve_precision("auto", "cpu"))
    with running_cluster() as cluster:
        yield Ground(cluster, "local", str(manifest), str(root / "bundle"), str(root), ("--shard-rows", "4"))


@pytest.mark.parametrize("case", POINTS, ids=named)
def test_points(ground: Ground, case: Case, record_property: Tell) -> None:
    record_property(POINT, f"real models: {case.name}")
    night = ground.night()
    survived = case.name.partition(" ")[0] != "driver"
    with Reader(night.output, ground.reference.rows) as reader:
        code, said = night.struck(*case.starts)
        record_property(REACHED, True)
        if not survived:
            assert code == KILLED, said
            assert reader.look() == int(case.published)
            code, said = night.wait(night.start())
        assert code == exits.COMMITTED, said
        night.check(reader)


@pytest.mark.timeout(3600)
def test_random_instants(ground: Ground, record_property: Tell) -> None:
    """Nights, each killed again and again until it is committed, until enough was killed."""
    chance, kills = random.Random(SEED), 0
    begun = time.monotonic()
    night = ground.night()
    assert night.wait(night.start())[0] == exits.COMMITTED
    length = time.monotonic() - begun
    expected = ground.reference.rows
    while kills < LEAST_KILLS:
        night = ground.night()
        with Reader(night.output, expected) as reader:
            code = KILLED
            while code == KILLED:
                code, said, hit = disturbed(night.start(), ground, chance, length)
                kills += hit
            assert code == exits.COMMITTED, said
            night.check(reader)
    record_property(KILLS, kills)


def disturbed(
    process: subprocess.Popen[str], ground: Ground, chance: random.Random, length: float
) -> tuple[int, str, int]:
    """A start in which processes are killed at random instants: exit code, what it said, how many were killed."""
    kills = 0
    while True:
        try:
            said, _ = process.communicate(timeout=chance.uniform(0, length / 2))
            return process.returncode, said, kills
        except subprocess.TimeoutExpired:
            workers = [one for one in psutil.Process(ground.cluster.process.pid).children(recursive=True) if ours(one)]
            if workers and kills < WORKERS_A_START and chance.random() < 2 / 3:
                chance.choice(workers).kill()
                kills += 1
            elif kills == WORKERS_A_START or chance.random() < 1 / 2:
                process.kill()
                said, _ = process.communicate(timeout=PATIENCE_SECONDS)
                return process.returncode, said, kills + 1


def ours(process: psutil.Process) -> bool:
    """Whether a process is one of the run's workers, by the title that Ray gives it."""
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return title.startswith("ray::") and any(word in title for word in VICTIMS)
