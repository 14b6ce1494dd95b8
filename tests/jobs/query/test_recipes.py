"""The ten questions of jobs/query/README.md, against figures that are counted here from the tables themselves."""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs.query.session import open_session
from jobs.storage import read_bytes
from tests.jobs.query.conftest import LAST, table

README = Path(__file__).parents[3] / "jobs" / "query" / "README.md"
NIGHTS = [f"2026-03-{day}" for day in range(10, 15)]
Rows = list[dict[str, Any]]
Answer = list[tuple[Any, ...]]


def recipes() -> list[str]:
    """The examples below "Ten questions", in their order."""
    _, _, text = README.read_text().partition("## Ten questions\n")
    return [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def answers(plant: str) -> list[Answer]:
    """What each of them gives."""
    with open_session(plant) as session:
        return [[row for answer in session.answers(sql) for row in answer.rows] for sql in recipes()]


@pytest.fixture(scope="module")
def night(plant: str) -> Rows:
    """The rows of the last night, both runs."""
    return table(plant) + table(plant, f"{LAST}/second")


def rate(rows: Iterable[dict[str, Any]]) -> float:
    scored = [row for row in rows if row["status"] == "scored"]
    return sum(row["decision"] == "anomalous" for row in scored) / len(scored)


def grouped(rows: Rows, key: Callable[[dict[str, Any]], Any]) -> dict[Any, Rows]:
    found: dict[Any, Rows] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def of_line(rows: Rows, line: str = "L3") -> Rows:
    return [row for row in rows if row["line"] == line]


def test_there_are_ten() -> None:
    assert len(recipes()) == 10


def test_1_last_night(answers: list[Answer], plant: str) -> None:
    expected = []
    for name in ("audit", "second"):
        rows = table(plant, f"{LAST}/{name}")
        scored = [row for row in rows if row["status"] == "scored"]
        review = sum(row["decision"] == "review" for row in rows) / len(scored)
        expected.append((name, len(rows), rate(rows), review, 1 - len(scored) / len(rows), 0))
    assert [row[0] for row in answers[0]] == ["audit", "second"]
    for found, wanted in zip(answers[0], expected, strict=True):
        assert found[1:] == pytest.approx(wanted[1:])


def test_2_lines(answers: list[Answer], night: Rows) -> None:
    expected = [
        (line, sum(row["decision"] == "anomalous" for row in rows), rate(rows))
        for line, rows in grouped(night, lambda row: row["line"]).items()
    ]
    assert answers[1] == sorted(expected, key=lambda row: -row[2])
    assert answers[1][0][0] == "L3"


def test_3_trend(answers: list[Answer], plant: str, night: Rows) -> None:
    rates = [rate(of_line(table(plant, f"{day}/audit"))) for day in NIGHTS[:-1]] + [rate(of_line(night))]
    assert [row[0] for row in answers[2]] == [date.fromisoformat(day) for day in NIGHTS]
    assert [row[1] for row in answers[2]] == pytest.approx(rates)
    assert [row[2] for row in answers[2]] == pytest.approx([sum(rates[: i + 1]) / (i + 1) for i in range(5)])


def test_4_worst_parts(answers: list[Answer], plant: str) -> None:
    expected = []
    for name in ("audit", "second"):
        rows = [row for row in of_line(table(plant, f"{LAST}/{name}")) if row["margin"] is not None]
        for place, row in enumerate(sorted(rows, key=lambda row: -row["margin"])[:10], 1):
            expected.append((place, *(row[k] for k in ("category", "margin", "decision", "uri", "overlay_path"))))
    assert answers[3] == expected
    assert expected[0][5] is not None


def test_5_cameras(answers: list[Answer], night: Rows) -> None:
    own = of_line(night)
    cameras = grouped(own, lambda row: row["camera"])
    expected = sorted(((name, rate(rows), rate(own)) for name, rows in cameras.items()), key=lambda row: -row[1])
    assert answers[4] == expected
    assert len(expected) == 2


def test_6_hours(answers: list[Answer], night: Rows) -> None:
    scored = [row for row in of_line(night) if row["status"] == "scored"]
    hours = grouped(scored, lambda row: row["captured_at"].replace(minute=0, second=0, microsecond=0))
    expected = [(h, len(rows), sum(r["decision"] == "anomalous" for r in rows)) for h, rows in sorted(hours.items())]
    assert answers[5] == expected
    assert len(expected) == 24


def test_7_batches(answers: list[Answer], night: Rows) -> None:
    scored = [row for row in of_line(night) if row["status"] == "scored"]
    batches = grouped(scored, lambda row: row["batch"])
    expected = [(name, len(rows), rate(rows)) for name, rows in batches.items() if len(rows) >= 50]
    assert answers[6] == sorted(expected, key=lambda row: (-row[2], row[0]))[:5]


def test_8_failures(answers: list[Answer], night: Rows) -> None:
    failed = [row for row in night if row["status"] == "failed"]
    kinds = grouped(failed, lambda row: (row["line"], row["camera"], row["error_stage"], row["error_code"]))
    expected = [(*kind, len(rows), min(row["uri"] for row in rows)) for kind, rows in kinds.items()]
    assert answers[7] == sorted(expected, key=lambda row: (-row[4], *row[:2], row[3]))
    assert sum(row[4] for row in answers[7]) == len(failed)


def test_9_places(answers: list[Answer], night: Rows) -> None:
    found = Counter(
        (min(int(3 * row["peak_x"] / row["width"]), 2), min(int(3 * row["peak_y"] / row["height"]), 2))
        for row in of_line(night)
        if (row["category"], row["decision"]) == ("pill", "anomalous")
    )
    assert answers[8] == sorted(((*place, n) for place, n in found.items()), key=lambda row: (-row[2], *row[:2]))
    assert len(found) > 3


def test_10_verdicts(answers: list[Answer], plant: str) -> None:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for name in ("audit", "second"):
        review = f"{plant}/runs/{LAST}/{name}/review"
        lines = read_bytes(f"{review}/{'verdicts' if name == 'audit' else 'queue-0001'}.csv").decode().splitlines()
        verdicts = dict(line.split(",") for line in lines) if name == "audit" else {}
        decisions = {row["image_id"]: row["decision"] for row in table(plant, f"{LAST}/{name}")}
        queue = read_bytes(f"{review}/queue-0001.csv").decode().splitlines()[1:]
        for image in (line.split(",")[0] for line in queue):
            found[decisions[image]][{"good": 0, "defective": 1}.get(verdicts.get(image, ""), 2)] += 1
    assert answers[9] == sorted((decision, *counts) for decision, counts in found.items())
    assert found["anomalous"][1] > 0
