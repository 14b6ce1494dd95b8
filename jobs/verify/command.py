"""``line-audit verify``: prints the checks and returns the exit code."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from jobs.audit import exits
from jobs.commands import ended
from jobs.terminal import output as console
from jobs.verify.run import Report, Settings, verify

_STYLE = {"ok": "green", "failed": "bold red", "not checked": "yellow"}


def verify_command(settings: Settings, *, as_json: bool = False) -> int:
    """Verify a run; returns the exit code: 0 all holds, 1 something does not, 2 usage, 4 storage."""

    def work() -> int:
        report = verify(settings)
        if as_json:
            print(
                json.dumps({"run": report.run_id, "uri": report.uri, "holds": report.holds, "checks": _plain(report)})
            )
        else:
            _print(report)
        return exits.COMMITTED if report.holds else exits.FAILED

    return ended(work)


def _plain(report: Report) -> list[dict[str, object]]:
    return [asdict(check) for check in report.checks]


def _print(report: Report) -> None:
    table = Table(title=f"run {report.run_id}", title_justify="left")
    for heading in ("check", "", "found"):
        table.add_column(heading, no_wrap=heading != "found")
    for check in report.checks:
        # As text, not markup: names come from whoever wrote the manifest.
        found = Text("\n".join([check.said, *(f"- {example}" for example in check.examples)]), overflow="fold")
        table.add_row(check.name, Text(check.status, style=_STYLE[check.status]), found)
    console.print(table)
    failed = [check.name for check in report.checks if check.status == "failed"]
    left = [check.name for check in report.checks if check.status == "not checked"]
    console.print(
        (f"does not hold: {', '.join(failed)}" if failed else "all that was checked holds")
        + (f"; not checked: {', '.join(left)}" if left else ""),
        markup=False,
    )
