"""Damaged images by the thousand: each gives a picture or a typed error, in bounded time and memory.

The long part: ``pytest -m campaign tests/faults/test_fuzz.py -s``; LINE_AUDIT_FUZZ_SECONDS says how long (300), and
LINE_AUDIT_FUZZ_SEED where the seeds begin (1,000,000).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice

import pytest

from tests.conftest import shared_root
from tests.faults.corpus import mutant, seeds
from tests.faults.costs import CRASHES, TYPED, Cost, Scale

# What one damaged picture of 224 x 224 may take, seconds of CPU: nearly all take milliseconds.
TIMEOUT, SECONDS, MEMORY = 120.0, 10.0, 2**30
QUICK_INPUTS, QUICK_SECONDS = 1500, 15.0


def fuzz(cases: Iterator[tuple[str, bytes]], seconds: float) -> dict[str, Cost]:
    """Decode cases until the time is over; prints the figures and returns the costs by name."""
    costs: dict[str, Cost] = {}
    begin = time.monotonic()
    with Scale(TIMEOUT) as scale:
        for name, data in cases:
            costs[name] = scale.weigh(data)
            if time.monotonic() - begin > seconds:
                break
    slowest = max(costs, key=lambda name: costs[name].cpu)
    largest = max(costs, key=lambda name: costs[name].memory)
    codes = Counter(cost.code for cost in costs.values())
    print(
        f"\n{len(costs):,} inputs, {sum(codes[code] for code in CRASHES)} crashes; {dict(codes.most_common())}\n"
        f"slowest {costs[slowest].cpu:.2f} s of CPU ({slowest}); "
        f"largest {costs[largest].memory / 2**20:.0f} MiB ({largest})"
    )
    return costs


def check(costs: dict[str, Cost]) -> None:
    assert {name: cost for name, cost in costs.items() if cost.code not in {"decoded", *TYPED}} == {}
    assert {name: cost for name, cost in costs.items() if cost.cpu > SECONDS or cost.memory > MEMORY} == {}
    assert all(0 < len(cost.message) <= 400 for cost in costs.values())


def test_damaged_images_give_a_picture_or_a_typed_error() -> None:
    files = seeds(shared_root())
    costs = fuzz(islice((mutant(files, seed) for seed in count()), QUICK_INPUTS), QUICK_SECONDS)
    check(costs)
    codes = {cost.code for cost in costs.values()}
    assert {"decoded", "truncated_image", "corrupt_image", "unsupported_format", "decompression_bomb"} <= codes


def test_the_same_seed_gives_the_same_file_and_most_are_damaged() -> None:
    files = seeds(shared_root())
    cases = [mutant(files, seed) for seed in range(300)]
    assert cases[:20] == [mutant(files, seed) for seed in range(20)]
    whole = set(files.values())
    assert sum(data not in whole for _, data in cases) > 270
    assert {name.split()[3] for name, _ in cases} == {
        "bits", "cut", "swapped", "deleted", "repeated", "number", "noise", "spliced", "mended",
    }  # fmt: skip


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_damaged_images_for_long() -> None:
    first = int(os.environ.get("LINE_AUDIT_FUZZ_SEED", "1000000"))
    files = seeds(shared_root())
    seconds = float(os.environ.get("LINE_AUDIT_FUZZ_SECONDS", "300"))
    check(fuzz((mutant(files, seed) for seed in count(first)), seconds))
