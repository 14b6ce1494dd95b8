"""What is shown of a job's log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jobs.audit.progress import Progress
from jobs.submit.screen import Screen


@pytest.mark.parametrize("progress", [Progress(0, 21), Progress(1_200_000, 3_400_500, "2 failed, 1,199,998 scored")])
def test_progress_survives_a_log(progress: Progress) -> None:
    assert Progress.read(progress.line() + "\r") == progress


@pytest.mark.parametrize("line", ["", "progress", "progress: 1 of 2", "note: progress: 1 of 2 images", "run a: 3 rows"])
def test_other_lines_are_no_progress(line: str) -> None:
    assert Progress.read(line) is None


def shown(lines: list[str], terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, highlight=False, color_system="standard")
    with Screen(console) as screen:
        screen.state("RUNNING")
        for line in lines:
            screen.line(line)
    return file.getvalue()


def test_a_log_file_gets_every_line_as_text() -> None:
    hostile = "[red]name[/] \x1b]0;title\x07 \x1b[2J\x1b[36mblue\x1b[0m \x9b2J \u202egnp"
    lines = ["progress: 4 of 21 images (1 failed)", "x" * 300, "[link=file:///etc]a[/link]", hostile]
    assert shown(lines, terminal=False).splitlines() == [
        *lines[:3],
        r"[red]name[/] 0;title blue \x9b2J \u202egnp",
    ]


def test_a_terminal_gets_a_bar() -> None:
    text = shown(["progress: 4 of 21 images (1 failed)", "written"], terminal=True)
    assert "4/21" in text and "1 failed" in text and "written" in text
    assert "of 21 images" not in text
