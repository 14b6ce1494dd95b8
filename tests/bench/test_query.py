"""The bench of questions asks all of them, and counts what is read."""

from __future__ import annotations

from pathlib import Path

from jobs.query.views import VIEWS
from tests.bench.query import LAST, draw, measure, questions, row_groups


def test_every_view_and_recipe_is_measured(tmp_path: Path) -> None:
    asked = dict(questions())
    assert len(asked) == len(VIEWS) + 5 + 10
    draw(str(tmp_path), rows=600, nights=3)
    found = {one.question: one for one in measure(str(tmp_path))}
    assert set(found) == {"opening a session (runs)", *asked}
    assert found["opening a session (runs)"].rows == 3
    # Of three tables one is read, and the footer of so small a one twice.
    night, every = found["results, one line and night"], found["nightly_rates, counted"]
    assert night.rows == 50
    assert 0 < night.bytes < (tmp_path / "results" / f"run_date={LAST}" / "audit.parquet").stat().st_size * 2
    assert every.bytes > 0
    assert found["runs, counted"].bytes == 0


def test_sizes_and_orders_are_compared(tmp_path: Path) -> None:
    lines = list(row_groups(200, tmp_path))
    assert len(lines) == 8
    assert all("worst 20" in line for line in lines)
