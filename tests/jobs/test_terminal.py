"""What is printed is text, whatever names and messages hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import terminal
from jobs.audit.config import AuditConfig
from jobs.audit.run import Outcome
from jobs.audit.summary import print_summary
from tests.nights import Night, write_night

HOSTILE = r"a\[/]b[bold]c[/]d :bomb: [link=https://x]e"


def test_messages_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.complain(HOSTILE)
    terminal.note(HOSTILE)
    terminal.say(HOSTILE)
    terminal.print_tables([(HOSTILE, ["first", "second"], [[HOSTILE, "1"]])])
    said = capsys.readouterr()
    assert said.err == f"error: {HOSTILE}\nnote: {HOSTILE}\n"
    assert said.out.startswith(f"{HOSTILE}\n")
    assert said.out.count(HOSTILE) == 3


def test_messages_give_no_orders_to_the_terminal_and_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.complain("a\x1b[2Jb\u202ec\nd s3://key:hushhush@bucket/x")
    assert capsys.readouterr().err == "error: a\\x1b[2Jb\\u202ec\nd s3://***@bucket/x\n"


@pytest.mark.parametrize(("columns", "whole"), [(None, True), ("60", False)])
def test_a_table_in_a_log_is_as_wide_as_it_needs_to_be(columns: str | None, whole: bool) -> None:
    cells = [f"{'number':>10}{i}" for i in range(9)]
    code = f"from jobs.terminal import print_tables\nprint_tables([('t', {cells}, [{cells}])])"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env=environment | ({"COLUMNS": columns} if columns else {}),
    )
    assert any(all(cell in line for cell in cells) for line in done.stdout.splitlines()) == whole


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_changes_no_exit_code(stream: str) -> None:
    code = "from jobs.terminal import note, say\nfor i in range(9):\n    say('a'); note('b')\nraise SystemExit(3)"
    here, gone = os.pipe()
    os.close(here)
    other = "stderr" if stream == "stdout" else "stdout"
    done = subprocess.run([sys.executable, "-c", code], check=False, **{stream: gone, other: subprocess.PIPE})
    os.close(gone)
    assert done.returncode == 3
    assert (done.stderr or done.stdout).count(b"\n") == 9


def test_a_summary_shows_a_category_that_looks_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, record = write_night(str(tmp_path), Night("2026-03-01", rows=60))
    record.counts["review_by_category"] = {"[/]x": 3, "\x1b[2J": 1}
    config = AuditConfig(manifest="m.csv", bundle="b", output=str(tmp_path))
    print_summary(config, Outcome(0, record))
    said = capsys.readouterr().out
    assert "[/]x" in said and "\\x1b[2J" in said and "\x1b" not in said
