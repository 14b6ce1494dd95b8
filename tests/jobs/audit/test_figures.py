"""What limits a run is told from what its stages spent."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from jobs.audit.figures import Machine, Meter, ProcessorTime, Spent, analyse, by_node, by_stage, cost, timings

CPUS = Machine(nodes=1, cpus=2, gpus=0, extracted_at_once=2, device="cpu")
OWN = Machine(nodes=1, cpus=16, gpus=1, extracted_at_once=2, device="cuda", own_scorers=True)
APART = Machine(nodes=4, cpus=19, gpus=1, extracted_at_once=2, device="cuda", load_cpus=3)
GPU = Machine(nodes=1, cpus=16, gpus=1, extracted_at_once=2, device="cuda")


def spent(wall: float, cpu: float, waited: float = 0.0, begin: float = 1000.0, end: float = 1100.0) -> Spent:
    return Spent(wall, cpu, waited, 500, begin, end)


@pytest.mark.parametrize(
    ("machine", "stages", "limiting", "why"),
    [
        # 190 of 200 CPU seconds are used, most of them for decoding.
        (CPUS, {"load": spent(120, 100), "extract": spent(90, 60), "score": spent(40, 30)}, "load", "busy 95 %"),
        (CPUS, {"load": spent(60, 40), "extract": spent(190, 130), "score": spent(40, 20)}, "extract", "busy 95 %"),
        # Of the 200 seconds that a GPU box may extract in, two shards at once.
        (GPU, {"load": spent(400, 300), "extract": spent(190, 20, 120), "score": spent(80, 70)}, "score", "63 % of"),
        (GPU, {"load": spent(400, 300), "extract": spent(190, 20), "score": spent(20, 10)}, "extract", "busy 95 %"),
        # A third shard always waits for its last scores, and both others keep the models busy.
        (GPU, {"load": spent(400, 300), "extract": spent(400, 20, 210), "score": spent(9, 7)}, "extract", "busy 95 %"),
        (GPU, {"load": spent(900, 90), "extract": spent(60, 10), "write": spent(80, 5)}, "load", "busy 30 %"),
        (GPU, {"load": spent(900, 850), "extract": spent(60, 10), "write": spent(90, 9)}, "write", "too slowly"),
        # No storage was waited for, and nobody was busy: that is no reason to blame the storage.
        (GPU, {"extract": spent(60, 10)}, "extract", "nothing was used up"),
        (GPU, {"load": spent(90, 50), "extract": spent(290, 20, 130), "score": spent(99, 90)}, "extract", "busy 80 %"),
        (GPU, {"load": spent(90, 50), "extract": spent(100, 20, 45), "score": spent(99, 90)}, "score", "45 % of"),
        # Extracting actors that score themselves are busy meanwhile.
        (OWN, {"load": spent(300, 250), "extract": spent(160, 30), "score": spent(40, 20)}, "extract", "busy 100 %"),
        # Where loading has nodes of its own, those of the models do not make them look idle.
        (APART, {"load": spent(300, 280), "extract": spent(60, 9), "write": spent(9, 5)}, "load", "were busy 95 %"),
        (APART, {"load": spent(300, 90), "extract": spent(60, 1300), "score": spent(9, 150)}, "extract", "models were"),
        # Loading ahead of the models is part of the time in which CPUs were used.
        (CPUS, {"load": spent(950, 190, begin=50), "extract": spent(30, 3, begin=1000)}, "load", "CPUs 9 %"),
    ],
)  # fmt: skip
def test_the_limiting_stage(machine: Machine, stages: dict[str, Spent], limiting: str, why: str) -> None:
    found = analyse(stages, machine)
    assert found is not None
    assert found.limiting == limiting and why in found.why and found.next


def test_a_run_that_extracted_nothing_has_no_limiting_stage() -> None:
    assert analyse({"load": spent(1, 1)}, CPUS) is None
    assert analyse({}, CPUS) is None


def test_calls_add_up_to_a_stage() -> None:
    both = Spent(1, 2, 3, 4, 10, 20) + Spent(10, 20, 30, 40, 5, 15)
    assert both == Spent(11, 22, 33, 44, 5, 20)
    assert by_stage({"extract": both})["extract"] == {
        "seconds": -22,
        "cpu_seconds": 22,
        "waited_seconds": 33,
        "images": 44,
        "cpu_ms_per_image": 500.0,
    }


def test_images_are_told_by_node() -> None:
    first, second = (Spent(1, 1, 0, rows, 0, 9, Counter({node: rows})) for node, rows in (("aa", 3), ("bb", 4)))
    told = by_node({"load": first + second + first, "write": second}, {"aa": "load", "cc": "models"})
    assert told == {
        "aa": {"pool": "load", "images": {"load": 6}},
        "bb": {"pool": None, "images": {"load": 4, "write": 4}},
    }


def test_a_meter_tells_wall_time_from_cpu_time() -> None:
    meter = Meter()
    time.sleep(0.2)
    idle = meter.read(3)
    assert idle.rows == 3 and idle.wall >= 0.2 and idle.cpu < 0.15 and idle.end - idle.begin >= 0.19


def test_processor_time_is_told_once_however_many_ask() -> None:
    whole, told = time.process_time(), []
    clock = ProcessorTime()

    def work() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        told.append(clock.since())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.3 <= sum(told) <= time.process_time() - whole
    assert clock.since() < 0.1


def test_timings_and_cost() -> None:
    figures = {
        "spent": {
            "load": spent(10, 9),
            "extract": spent(50, 40, 5, 1010, 1060),
            "score": spent(5, 5, 0, 1012, 1060),
            "write": spent(2, 1, 0, 1030, 1061),
        },
        "tried_again": {7: 2},
        "machine": CPUS,
    }
    told = timings(20.0, 100.0, 110.0, 500, figures, 3.6, began=990.0, before=20.0)
    assert told["images_per_second"] == 5.0  # 500 in 100 s
    assert (told["seconds"], told["plan_seconds"], told["score_seconds"]) == (110.0, 20.0, 80.0)
    assert told["start_up_seconds"] == 20.0
    assert told["images_per_second_steady"] == pytest.approx(500 / (1100 - 1010), abs=0.01)
    assert told["seconds_to_first_score"] == 22.0
    assert told["node_seconds"] == 110.0 and told["shards_tried_again"] == {"7": 2}
    assert told["cost"] == {"price_per_node_hour": 3.6, "total": 0.11, "per_1000_images": 0.22}
    assert told["limiting"]["limiting"] and told["stages"]["extract"]["waited_seconds"] == 5
    assert "cost" not in timings(0.0, 80.0, 90.0, 500, figures, None, 0.0, 0.0)


def test_a_start_that_scored_nothing_has_no_rates() -> None:
    told = timings(0.0, 1.0, 2.0, 0, {}, 1.0, 0.0, 0.0)
    assert told["images_per_second"] is None and "limiting" not in told and "cost" not in told
    assert cost(10.0, 0, 1.0)["per_1000_images"] is None
