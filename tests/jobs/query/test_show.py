"""Rows as a table, CSV, JSON and Markdown: every value, and names as text."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from jobs.query.show import ON_SCREEN, show

COLUMNS = ["a", "a", "when", "day", "price", "list", "odd"]
MOMENT = datetime(2026, 3, 14, 1, 2, 3, 4, tzinfo=UTC)
ROWS = [
    (1, True, MOMENT, date(2026, 3, 14), Decimal("1.50"), [1, {"k": None}], 'x "y", \n| [red]*z*[/] <b> \x1b[31m'),
    (None, float("nan"), None, None, None, None, ""),
]


def written(format: str) -> str:
    target = io.StringIO()
    assert show(format, COLUMNS, ROWS, target) == 2
    return target.getvalue()


def test_csv_is_read_back() -> None:
    found = list(csv.reader(io.StringIO(written("csv"), newline="")))
    assert found == [
        COLUMNS,
        ["1", "true", "2026-03-14 01:02:03.000004+00:00", "2026-03-14", "1.50", '[1, {"k": null}]', ROWS[0][6]],
        ["", "nan", "", "", "", "", ""],
    ]


def test_json_keeps_types_and_columns_of_one_name() -> None:
    first, second = json.loads(written("json"))
    assert list(first) == ["a", "a_2", "when", "day", "price", "list", "odd"]
    assert first == {
        "a": 1, "a_2": True, "when": MOMENT.isoformat(), "day": "2026-03-14", "price": "1.50",
        "list": [1, {"k": None}], "odd": ROWS[0][6],
    }  # fmt: skip
    assert set(second.values()) == {None, ""}
    empty = io.StringIO()
    show("json", ["a"], [], empty)
    assert json.loads(empty.getvalue()) == []


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("csv", 'b,c\nff00,"[""00""]"\n'),
        ("json", '[\n {"b": "ff00", "c": ["00"]}\n]\n'),
        ("markdown", '| b | c |\n| --- | --- |\n| ff00 | \\["00"\\] |\n'),
    ],
)
def test_bytes_are_hexadecimal_digits(format: str, expected: str) -> None:
    target = io.StringIO()
    show(format, ["b", "c"], [(b"\xff\x00", [b"\x00"])], target)
    assert target.getvalue() == expected


def test_columns_that_find_no_place_side_by_side_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = [f"column_{i:02d}" for i in range(12)]
    rows = [tuple(range(12)), (*range(11), "s3://plant/" + "x" * 100 + "[red]")]
    target = io.StringIO()
    assert show("table", columns, rows, target) == 2
    lines = [line.rstrip() for line in target.getvalue().splitlines()]
    assert lines[0] == "row 1" and lines[13] == "row 2"
    assert [line.split() for line in lines[1:13]] == [[f"column_{i:02d}", str(i)] for i in range(12)]
    assert "".join(line.split()[-1] for line in lines[25:]).endswith("[red]") and max(map(len, lines)) <= 80
    few = io.StringIO()
    show("table", columns[:4], [row[:4] for row in rows], few)
    assert "┃ column_00" in few.getvalue()


def test_a_person_gets_six_digits_and_a_program_all() -> None:
    table, text = io.StringIO(), io.StringIO()
    values = [(0.373015873015873,), (1234567.25,), (0.00001234,), (0.0,), (float("nan"),)]
    show("table", ["x"], values, table)
    found = [line.strip("│ ") for line in table.getvalue().splitlines()[3:-1]]
    assert found == ["0.373016", "1234567.25", "1.234e-05", "0.0", "nan"]
    show("csv", ["x"], values[:1], text)
    assert text.getvalue() == "x\n0.373015873015873\n"


def test_markdown_has_a_line_for_each_row_and_no_markup() -> None:
    lines = written("markdown").splitlines()
    assert len(lines) == 4
    assert lines[1] == "|" + " --- |" * 7
    assert lines[2].endswith(r'| x "y", \\n\| \[red\]\*z\*\[/\] \<b\> \\x1b\[31m |')


def test_a_table_shows_what_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = written("table")
    assert "[red]*z*[/]" in "".join(text.split())
    assert "\x1b" not in text
    assert "┃ a" in text
    plan = io.StringIO()
    show("table", ["plan"], [("first\n  second",)], plan)
    assert [line.strip("│ ") for line in plan.getvalue().splitlines()[3:5]] == ["first", "second"]


def test_a_long_table_says_that_it_was_cut(capsys: pytest.CaptureFixture[str]) -> None:
    target = io.StringIO()
    assert show("table", ["n"], ((i,) for i in range(ON_SCREEN + 1)), target) == ON_SCREEN
    assert f" {ON_SCREEN - 1} " in target.getvalue()
    assert f" {ON_SCREEN} " not in target.getvalue()
    assert f"only the first {ON_SCREEN} rows" in capsys.readouterr().err
    show("table", ["n"], ((i,) for i in range(ON_SCREEN)), io.StringIO())
    assert capsys.readouterr().err == ""
