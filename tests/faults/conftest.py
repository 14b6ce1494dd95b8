"""What the campaign of kills has shown, told at its end: a table, and JSON where LINE_AUDIT_CAMPAIGN names a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "LINE_AUDIT_CAMPAIGN"
# Tests say with record_property what they do: point (a point of enumeration), reached (the kill happened), and kills
# (so many at random instants).
POINT, REACHED, KILLS = "point", "reached", "kills"


def figures(reports: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """From outcome and properties of each test to points by name, and counts."""
    points: dict[str, str] = {}
    kills = survived = 0
    for outcome, properties in reports:
        if POINT in properties:
            reached = "reached" if REACHED in properties else "not reached"
            points[properties[POINT]] = "passed" if outcome == "passed" else f"{outcome}, {reached}"
        kills += properties.get(KILLS, 0)
        survived += properties.get(KILLS, 0) if outcome == "passed" else 0
    return {
        "points": {
            "total": len(points),
            "covered": sum(REACHED in properties for _, properties in reports if POINT in properties),
            "passed": sum(said == "passed" for said in points.values()),
            "by_name": points,
        },
        "random": {"kills": kills, "survived": survived},
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, if kills were part of this session."""
    reports = [
        (outcome, dict(report.user_properties))
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        if getattr(report, "when", "") == "call"
    ]
    found = figures(reports)
    points, random = found["points"], found["random"]
    if not points["total"] and not random["kills"]:
        return
    terminalreporter.section("kills")
    for name, said in points["by_name"].items():
        terminalreporter.write_line(f"{said:24} {name}")
    terminalreporter.write_line(
        f"kill points: {points['covered']} covered, {points['passed']} passed, {points['total']} in all; "
        f"random instants: {random['survived']} survived of {random['kills']}"
    )
    if path := os.environ.get(VARIABLE):
        Path(path).write_text(json.dumps(found, indent=2) + "\n")
