"""The exit status of a gate, at its border and on either side of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from jobs.audit import exits
from jobs.cli import app
from tests.jobs.compare.hand import Row, by_hand, failed, row


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


def runs(tmp_path: Path, a: list[Row], b: list[Row]) -> list[str]:
    return [by_hand(str(tmp_path), "a", a), by_hand(str(tmp_path), "b", b)]


def some(count: int, prefix: str = "", **values: object) -> list[Row]:
    return [row(f"{prefix}{place}", 0.5, **values) for place in range(count)]


def of_all(anomalous: int, count: int, prefix: str) -> list[Row]:
    return [row(f"{prefix}{place}", 1.5 if place < anomalous else 0.5) for place in range(count)]


@pytest.mark.parametrize(
    ("limit", "code"), [("2", 0), ("1", 3), ("1%", 0), ("0.01", 0), ("0.99%", 3), ("0", 3), ("0%", 3), ("100%", 0)]
)
def test_changed_decisions(tmp_path: Path, limit: str, code: int) -> None:
    # 2 of 200: one is anomalous now, one failed; and what failed in both is in no share.
    b = [row("0", 1.5), failed("1"), *some(200)[2:], failed("broken")]
    found = ran(*runs(tmp_path, [*some(200), failed("broken")], b), "--max-changed", limit)
    assert found.exit_code == code
    word = "within" if code == 0 else "beyond"
    assert f"{word} --max-changed" in found.stdout and "2 of 200 decisions changed (1 %)" in found.stdout


def test_without_a_limit_nothing_is_judged(tmp_path: Path) -> None:
    found = ran(*runs(tmp_path, some(3), [row("0", 9.0), row("1", 9.0), row("2", 9.0)]), "--json")
    assert found.exit_code == exits.COMMITTED
    said = json.loads(found.stdout)
    assert (said["gate"], said["images"]["changed"]["count"], said["exit_code"]) == (None, 3, 0)


@pytest.mark.parametrize(("limit", "code"), [("1%", 0), ("0.01", 0), ("0.99%", 3), ("0%", 3)])
def test_rates_of_two_nights(tmp_path: Path, limit: str, code: int) -> None:
    # 29 % less 28 % is more than 1 % in binary. Chance alone is no excuse for all images together.
    both = runs(tmp_path, of_all(28, 100, "a"), of_all(29, 100, "b"))
    found = ran(*both, "--max-rate-change", limit, "--json")
    assert found.exit_code == code
    gate = json.loads(found.stdout)["gate"]
    assert gate["within"] == (code == 0) and gate["option"] == "--max-rate-change"
    assert gate["found"] == "the largest change is +1 points, of anomalous in all images"
    assert ran(*reversed(both), "--max-rate-change", limit).exit_code == code


def test_a_group_counts_if_it_changed_beyond_chance(tmp_path: Path) -> None:
    quiet = some(900, "quiet a"), some(900, "quiet b")
    loud = [
        [row(f"{side}{i}", 1.5 if i < n else 0.5, line="L2") for i in range(100)] for side, n in (("a", 0), ("b", 30))
    ]
    both = runs(tmp_path, quiet[0] + loud[0], quiet[1] + loud[1])
    found = ran(*both, "--max-rate-change", "5%")  # 3 points of all
    assert found.exit_code == exits.BUDGET_EXCEEDED
    assert "the largest change is +30 points, of anomalous in line L2" in found.stdout
    assert ran(*both, "--max-rate-change", "30%").exit_code == exits.COMMITTED


def test_a_group_that_changed_by_chance_does_not_count(tmp_path: Path) -> None:
    lone = [[row(f"lone {side}", margin, line="L2")] for side, margin in (("a", 0.5), ("b", 1.5))]
    both = runs(tmp_path, some(300, "a") + lone[0], some(300, "b") + lone[1])
    assert ran(*both, "--max-rate-change", "1%").exit_code == exits.COMMITTED


@pytest.mark.parametrize("limit", ["x", "-1", "101%", "nan%", "1 %%"])
@pytest.mark.parametrize("option", ["--max-changed", "--max-rate-change"])
def test_a_limit_that_is_none(tmp_path: Path, option: str, limit: str) -> None:
    found = ran("runs/2026-01-01/a", "runs/2026-01-01/b", option, limit)
    assert found.exit_code == exits.USAGE
    assert option in found.stderr


def test_a_change_of_rates_is_no_count(tmp_path: Path) -> None:
    found = ran(*runs(tmp_path, some(1, "a"), some(1, "b")), "--max-rate-change", "1")
    assert found.exit_code == exits.USAGE
    assert "--max-rate-change 1: write a share such as 1% or 0.01" in found.stderr


def test_a_limit_of_the_other_question_is_not_passed(tmp_path: Path) -> None:
    alike = runs(tmp_path / "alike", some(3), some(3))
    apart = runs(tmp_path / "apart", some(3, "a"), some(3, "b"))
    for both, option, remedy in (
        (alike, "--max-rate-change", "--as rates"),
        (apart, "--max-changed", "--max-rate-change"),
    ):
        found = ran(*both, option, "1%")
        assert found.exit_code == exits.USAGE
        assert remedy in " ".join(found.stderr.split())
        # Who gives both wants the one that fits.
        assert ran(*both, "--max-rate-change", "1%", "--max-changed", "1%").exit_code == exits.COMMITTED
    assert ran(*alike, "--max-rate-change", "1%", "--as", "rates").exit_code == exits.COMMITTED


def test_what_was_not_scored_cannot_pass(tmp_path: Path) -> None:
    alike = runs(tmp_path / "alike", [failed("x")], [failed("x")])
    found = ran(*alike, "--max-changed", "1%")
    assert found.exit_code == exits.USAGE and "nothing to judge" in found.stderr
    apart = runs(tmp_path / "apart", [failed("x")], [failed("y")])
    found = ran(*apart, "--max-rate-change", "1%")
    assert found.exit_code == exits.USAGE and "nothing to judge" in found.stderr
    empty = runs(tmp_path / "empty", [], [row("x", 0.5)])
    found = ran(*empty, "--max-rate-change", "1%")
    assert found.exit_code == exits.USAGE and "nothing to judge" in found.stderr
    # A night that failed as a whole is another matter.
    broken = runs(tmp_path / "broken", [row("x", 0.5)], [failed("y")])
    assert ran(*broken, "--max-rate-change", "1%").exit_code == exits.BUDGET_EXCEEDED
    broken = runs(tmp_path / "broken too", [row("x", 0.5)], [failed("x")])
    assert ran(*broken, "--max-changed", "1%").exit_code == exits.BUDGET_EXCEEDED
