"""The command: exit codes, where its words go, and the file for DuckDB's own command line."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from jobs.audit.summary import query_line
from jobs.cli import app
from jobs.query import command
from jobs.query.command import Asked, sql_command
from jobs.query.views import VIEWS, script
from jobs.range_files import RangeFiles
from jobs.storage import delete, write_bytes
from tests.jobs.query.conftest import LAST, ask, table
from tests.nights import Night, write_night


def test_rows_go_to_standard_output_and_words_do_not(plant: str, capsys: pytest.CaptureFixture[str]) -> None:
    sql = f"SET VARIABLE night = DATE '{LAST}'; SELECT count(*) AS n FROM results WHERE run_date = getvariable('night')"
    assert sql_command(Asked(plant, execute=sql, stats=True)) == 0
    told = capsys.readouterr()
    assert told.out == "n\n3000\n"
    assert "1 rows, " in told.err
    assert "MB read in" in told.err


def test_a_file_of_statements(plant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.sql").write_bytes("\ufeffSELECT 1 AS a; -- one\nSELECT 'ä' AS b;\n".encode())
    assert sql_command(Asked(plant, file=str(tmp_path / "q.sql"), format="json")) == 0
    first, second = capsys.readouterr().out.split("]\n")[:2]
    assert json.loads(first + "]") == [{"a": 1}]
    assert json.loads(second + "]") == [{"b": "ä"}]


def test_standard_input_that_is_no_terminal(
    plant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 7 AS a"))
    assert sql_command(Asked(plant)) == 0
    assert capsys.readouterr().out == "a\n7\n"


def test_the_prompt_goes_on_after_an_error(
    plant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command, "statements", lambda: iter(["SELEC 1;", "SELECT count(*) AS n FROM runs;"]))
    assert sql_command(Asked(plant, format="csv")) == 0
    told = capsys.readouterr()
    assert told.out == "n\n6\n"
    assert 'syntax error at or near "SELEC"' in told.err
    assert all(view in told.err for view in VIEWS)


def test_the_prompt_goes_on_when_the_storage_has_refused(
    plant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch, refusals = RangeFiles.fetch, list[str]()

    def refuse_once(self: RangeFiles, file: Any, start: int, end: int) -> bytes:
        with self._noting():
            if refusals:
                raise PermissionError(refusals.pop())
        return fetch(self, file, start, end)

    def typed() -> Iterator[str]:
        refusals.append("AccessDenied")
        for _ in range(2):
            yield "SELECT count(content) AS n FROM read_text('output://runs/*/*/run.json');"

    monkeypatch.setattr(RangeFiles, "fetch", refuse_once)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command, "statements", typed)
    assert sql_command(Asked(plant, format="csv")) == 0
    told = capsys.readouterr()
    assert "permission denied (AccessDenied)" in told.err
    assert told.out == "n\n7\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"execute": "SELECT colour FROM results"}, '"colour" not found'),
        ({"execute": "SELECT 1", "file": "q.sql"}, "give one of"),
        ({"file": "/no/such.sql"}, "/no/such.sql: there is no such file"),
        ({"file": "/"}, "is a folder"),
        ({"output": "/no/such", "execute": "SELECT 1"}, "there is no committed run"),
        ({"output": "/no/such", "write_views": "views.sql"}, "there is no committed run"),
        ({"output": "gs://plant/audit", "write_views": "views.sql"}, "a local folder or s3://"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_2(
    plant: str, asked: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sql_command(Asked(**({"output": plant} | asked))) == 2
    assert said in capsys.readouterr().err
    assert not Path("views.sql").exists()


def test_an_error_that_quotes_a_table_writes_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_night(str(tmp_path), Night(LAST, rows=24, more={"note": "\x1b[2J[bold]x"}))
    assert sql_command(Asked(str(tmp_path), execute="SELECT note::INT FROM results")) == 2
    told = capsys.readouterr().err
    assert r"\x1b[2J[bold]x" in told
    assert "\x1b" not in told


def test_the_line_that_a_person_types(plant: str) -> None:
    run = CliRunner().invoke(
        app, ["sql", "--output", plant, "-e", "SELECT max(run_date) AS d FROM runs", "--format", "markdown"]
    )
    assert (run.exit_code, run.output) == (0, f"| d |\n| --- |\n| {LAST} |\n")


def test_the_line_that_the_summary_of_an_audit_prints(plant: str) -> None:
    program, *words = shlex.split(query_line(plant))
    run = CliRunner().invoke(app, words)
    assert (program, run.exit_code) == ("line-audit", 0)
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    assert sum(int(row["images"]) for row in rows) == 7800
    assert {row["run_date"] for row in rows} == {f"2026-03-{day}" for day in range(10, 15)}


def test_help_does_not_wait_for_duckdb() -> None:
    code = (
        "import sys\nfrom jobs.cli import app\n"
        "try: app(['sql', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'duckdb', 'ray', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))


def test_the_file_of_views_gives_what_the_session_gives(
    plant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "views.sql"
    assert sql_command(Asked(plant, write_views=str(target))) == 0
    with duckdb.connect() as connection:
        connection.execute(target.read_text())
        for view in VIEWS:
            columns = connection.sql(f"FROM {view}").columns
            names = ", ".join(f'"{name}"' for name in sorted(columns))
            sql = f"SELECT {names} FROM {view} ORDER BY ALL"
            assert connection.execute(sql).fetchall() == ask(plant, sql), view
        sql = f"SELECT count(*) FROM results WHERE run_date = '{LAST}' AND run_name = 'audit'"
        assert connection.execute(sql).fetchall() == [(len(table(plant)),)]


@pytest.mark.parametrize(("name", "typed"), [("views.sql", "{}"), ('my "own" views.sql', '"{}"'), ("it's.sql", '"{}"')])
def test_the_line_that_reads_the_file_of_views(
    plant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, typed: str
) -> None:
    target = str(tmp_path / name)
    assert sql_command(Asked(plant, write_views=target)) == 0
    assert f".read {typed.format(target.replace(chr(34), chr(92) + chr(34)))}\n" in capsys.readouterr().err


def test_the_file_of_views_finds_runs_whenever_it_is_read(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    text = script(output)
    with duckdb.connect() as connection:
        with pytest.raises(duckdb.Error, match="there is no committed run"):
            connection.execute(text)
        folder, _ = write_night(output, Night("2026-03-01", rows=24))
        connection.execute(text)
        write_night(output, Night("2026-03-02", rows=24))
        count = "SELECT count(*), count(DISTINCT run_date) FROM results"
        assert connection.execute(count).fetchall() == [(24, 1)]
        connection.execute(text)
        assert connection.execute(count).fetchall() == [(48, 2)]
        assert connection.execute("SELECT count(verdict) FROM review_queue").fetchall() == [(0,)]
        write_bytes(folder.verdicts, b"image_id,verdict\n")
        delete(folder.success)
        connection.execute(text)
        assert connection.execute("SELECT run_id FROM runs").fetchall() == [("2026-03-02/audit",)]
        assert connection.execute(count).fetchall() == [(24, 1)]


def test_one_night_of_the_file_of_views_opens_one_table(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        write_night(str(tmp_path), Night(f"2026-03-0{day}", rows=24))
    with duckdb.connect() as connection:
        connection.execute(script(str(tmp_path)))
        for night in ("'2026-03-02'", "(SELECT max(run_date) FROM runs)"):
            sql = f"EXPLAIN ANALYZE SELECT count(uri) FROM worst_by_line WHERE run_date = {night}"
            ((_, plan),) = connection.execute(sql).fetchall()
            assert "Total Files Read: 1" in plan
