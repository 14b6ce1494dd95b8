"""The views say what the tables and records say, of committed runs only, and nothing can be written."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, Unfinished, read_record
from jobs.query.session import Session, open_session
from jobs.storage import delete, read_bytes, write_bytes
from tests.jobs.query.conftest import LAST, ask, table
from tests.nights import Night, write_night

NIGHT = date.fromisoformat(LAST)
AUDIT = f"run_date = '{LAST}' AND run_name = 'audit'"
RUNS = [*(f"2026-03-{day}/audit" for day in range(10, 15)), f"{LAST}/second"]


@pytest.fixture(scope="module")
def session(plant: str) -> Iterator[Session]:
    """A session that the tests of this module share."""
    with open_session(plant) as opened:
        yield opened


def rows(session: Session, sql: str) -> list[tuple[Any, ...]]:
    return [list(answer.rows) for answer in session.answers(sql)][-1]


def test_results_are_those_of_committed_runs(session: Session, plant: str) -> None:
    found = rows(session, "SELECT run_date, run_name, run_id, count(*) FROM results GROUP BY ALL ORDER BY ALL")
    sizes = [1200] * 4 + [2400, 600]
    assert found == [(date.fromisoformat(run[:10]), run[11:], run, size) for run, size in zip(RUNS, sizes, strict=True)]
    assert Path(plant, "results/run_date=2026-03-15/audit.parquet").is_file()
    got = rows(session, f"SELECT image_id, score, captured_at, line FROM results WHERE run_id = '{LAST}/audit'")
    assert got == [(row["image_id"], row["score"], row["captured_at"], row["line"]) for row in table(plant)]


def test_nights_with_other_columns_are_one_table(session: Session) -> None:
    """Columns that a night lacks are null; where types differ, values are text."""
    sql = "SELECT run_id, any_value(batch), any_value(recipe), any_value(oven) FROM results GROUP BY 1 ORDER BY 1"
    found = rows(session, sql)
    assert found[0] == (RUNS[0], "batch-0", None, None)
    assert found[-2:] == [(RUNS[4], "batch-0", "R'7", "3"), (RUNS[5], "batch-0", None, "west")]


def test_runs_say_what_their_records_say(session: Session, plant: str) -> None:
    sql = (
        "SELECT run_id, version, images, scored, failed, anomalous, failed_rate, anomalous_rate, review_rate, "
        "seconds, images_per_second, limiting_stage, exit_code, bundle, precision, cost, unfinished FROM runs"
    )
    found = rows(session, sql)
    assert [row[0] for row in found] == RUNS
    results = table(plant)
    scored = [row for row in results if row["status"] == "scored"]
    anomalous, review = (sum(row["decision"] == kind for row in results) for kind in ("anomalous", "review"))
    failed = len(results) - len(scored)
    assert failed > 20
    assert anomalous > 40
    rates = (failed / 2400, anomalous / len(scored), review / len(scored))
    assert found[4] == (
        RUNS[4], 1, 2400, len(scored), failed, anomalous, *rates, 108.0, 22.2, "CPU", 0, "bundle", "bfloat16", None,
        None,
    )  # fmt: skip


def test_failures_are_the_failed_rows(session: Session, plant: str) -> None:
    found = rows(
        session, f"SELECT image_id, error_stage, error_code, category FROM failures WHERE {AUDIT} ORDER BY image_id"
    )
    expected = [
        (row["image_id"], row["error_stage"], row["error_code"], row["declared_category"])
        for row in table(plant)
        if row["status"] == "failed"
    ]
    assert found == sorted(expected)


def test_the_worst_of_each_line_are_ranked(session: Session, plant: str) -> None:
    found = rows(session, f"SELECT line, rank, image_id, margin FROM worst_by_line WHERE {AUDIT}")
    expected = []
    for line in ("L1", "L2", "L3", "L4"):
        margins = [r for r in table(plant) if r["line"] == line and r["margin"] is not None]
        worst = sorted(margins, key=lambda r: (-r["margin"], r["image_id"]))[:100]
        expected += [(line, place, r["image_id"], r["margin"]) for place, r in enumerate(worst, 1)]
    assert found == expected


def test_rates_by_line_camera_and_category(session: Session, plant: str) -> None:
    found = rows(
        session,
        "SELECT images, scored, failed, anomalous, review, anomalous_rate, failed_rate FROM nightly_rates "
        f"WHERE {AUDIT} AND line = 'L3' AND camera = 'top' AND category = 'pill'",
    )
    own = [
        row
        for row in table(plant)
        if (row["line"], row["camera"], row["category"] or row["declared_category"]) == ("L3", "top", "pill")
    ]
    scored = [row for row in own if row["status"] == "scored"]
    decided = {kind: sum(row["decision"] == kind for row in own) for kind in ("failed", "anomalous", "review")}
    assert found == [
        (len(own), len(scored), *decided.values(), decided["anomalous"] / len(scored), decided["failed"] / len(own))
    ]
    assert decided["anomalous"] > 5
    failures = rows(session, "SELECT count(*) FROM failures")[0][0]
    assert rows(session, "SELECT sum(images), sum(failed) FROM nightly_rates") == [(7800, failures)]


def test_the_queue_has_the_verdicts_that_came_back(session: Session, plant: str) -> None:
    found = rows(
        session, "SELECT run_date, run_name, count(*), count(verdict) FROM review_queue GROUP BY ALL ORDER BY ALL"
    )
    assert [f"{row[0]}/{row[1]}" for row in found] == RUNS
    assert [row[3] > 0 for row in found] == [False] * 4 + [True, False]
    sql = f"SELECT image_id, margin, random, passed, verdict FROM review_queue WHERE {AUDIT} ORDER BY image_id"
    queue = list(csv.DictReader(io.StringIO(read_bytes(RunFolder(plant, LAST, "audit").queue(1)).decode())))
    verdicts = [
        (None if place % 3 else "defective" if row["decision"] == "anomalous" else "good")
        for place, row in enumerate(queue)
    ]
    expected = [
        (row["image_id"], float(row["margin"]), row["random"] == "true", int(row["passed"]), verdict)
        for row, verdict in zip(queue, verdicts, strict=True)
    ]
    assert rows(session, sql) == sorted(expected)
    assert {"good", "defective", None} == set(verdicts)


def test_pictures_come_worst_first(session: Session, plant: str) -> None:
    found = rows(session, "SELECT margin, overlay_path FROM heatmaps")
    assert len(found) == 5
    assert found == sorted(found, reverse=True)
    assert found[0][0] == max(row["margin"] for row in table(plant) if row["margin"] is not None)
    assert all(Path(path).is_file() for _, path in found)


def test_a_later_version_has_a_queue_of_its_own(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night(LAST, rows=300))
    record.rethresholds.append({"version": 2})
    record.save(folder)
    queue = read_bytes(folder.queue(1)).decode()
    assert ask(str(tmp_path), "SELECT count(*) FROM review_queue") == [(0,)]
    # Saved by a spreadsheet of a country that writes numbers with a comma.
    lines = queue.replace(f"{LAST}/audit,1,", f"{LAST}/audit,2,").splitlines()[:3]
    text = "\ufeff" + "\r\n".join(line.replace(",", ";").replace(".", ",") for line in lines) + "\r\n"
    write_bytes(folder.queue(2), text.encode())
    found = ask(str(tmp_path), "SELECT version, image_id, margin, verdict FROM review_queue ORDER BY image_id")
    assert [row[0] for row in found] == [2, 2]
    assert {row[1] for row in found} == {line.split(",")[0] for line in lines[1:]}
    assert [row[2:] for row in found] == [(None, None)] * 2


def test_one_night_and_line_read_little(plant: str) -> None:
    """Of six tables one is opened, and of that the columns that are asked for."""
    with open_session(plant) as session:
        sql = f"SELECT decision, count(*) FROM results WHERE run_date = '{LAST}' AND line = 'L3' GROUP BY 1"
        (answer,) = session.answers(sql)
        assert sum(count for _, count in answer.rows) == sum(
            row["line"] == "L3" for run in RUNS[4:] for row in table(plant, run)
        )
        sizes = [path.stat().st_size for path in Path(plant, "results", f"run_date={LAST}").iterdir()]
        assert 0 < answer.reads.bytes < sum(sizes) / 2
        assert answer.seconds > 0
        (answer,) = session.answers("SELECT max(anomalous_rate) FROM runs")
        assert len(list(answer.rows)) == 1
        assert answer.reads.bytes == 0


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1 AS a) TO 'output://results/run_date=2026-03-14/audit.parquet' (FORMAT parquet)",
        "COPY (SELECT 1 AS a) TO 'output://new.csv'",
        "COPY (SELECT 1 AS a) TO '{plant}/new.csv'",
        "COPY (SELECT 1 AS a) TO 'file://{plant}/new.csv'",
        "EXPORT DATABASE 'output://results'",
        "EXPORT DATABASE '{plant}/results'",
        "ATTACH 'output://new.db'",
        "ATTACH '{plant}/new.db'",
        "DELETE FROM results",
        "INSERT INTO runs SELECT * FROM runs",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling = 'json'",
        "FROM read_text('/etc/hostname')",
        "FROM read_text('output://../hidden')",
        "FROM read_text('output:///etc/hostname')",
        "FROM read_text('output://none')",
        "FROM read_text('output://runs')",
        "FROM read_text('output://')",
        "COPY (SELECT 1 AS a, 2 AS b) TO 'output://new' (FORMAT parquet, PARTITION_BY (a))",
        "COPY (SELECT 1 AS a, 2 AS b) TO 'output://results' (FORMAT parquet, PARTITION_BY (a), OVERWRITE)",
        "COPY (SELECT 1 AS a) TO 'output://new' (FORMAT parquet, PER_THREAD_OUTPUT)",
        "INSTALL httpfs",
    ],
)
def test_nothing_is_written_and_nothing_else_is_read(plant: str, statement: str) -> None:
    before = {path: path.read_bytes() for path in Path(plant).rglob("*") if path.is_file()}
    Path(plant).with_name("hidden").write_text("not yours")
    with pytest.raises(AuditError) as refused:
        ask(plant, statement.format(plant=plant.replace("'", "''")))
    assert refused.value.code == exits.USAGE
    assert "Traceback" not in refused.value.message
    assert {path: path.read_bytes() for path in Path(plant).rglob("*") if path.is_file()} == before


def test_what_duckdb_refuses_is_told(session: Session) -> None:
    with pytest.raises(AuditError, match='"colour" not found') as refused:
        rows(session, "SELECT colour FROM results")
    assert refused.value.code == exits.USAGE
    with pytest.raises(AuditError, match=r'syntax error at or near "SELEC"'):
        rows(session, "SELECT 1; SELEC 2")


def test_an_output_without_committed_runs(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no committed run") as refused, open_session(str(tmp_path)):
        pass
    assert refused.value.code == exits.USAGE
    folder, _ = write_night(str(tmp_path), Night(LAST, rows=24))
    delete(folder.success)
    with pytest.raises(AuditError, match="there is no committed run"), open_session(str(tmp_path)):
        pass


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    folder, _ = write_night(str(tmp_path), Night(LAST, rows=24))
    write_bytes(folder.record, b'{"run_id": 7')
    with pytest.raises(AuditError, match=r"run\.json is not a run record"), open_session(str(tmp_path)):
        pass


def test_a_table_that_is_gone_is_told_of(tmp_path: Path) -> None:
    for day in (1, 2):
        folder, _ = write_night(str(tmp_path), Night(f"2026-03-0{day}", rows=24))
    delete(folder.results)
    with open_session(str(tmp_path)) as session:
        assert [doubt for doubt in session.doubts if "2026-03-02/audit" in doubt and "gone" in doubt]
        assert rows(session, "SELECT DISTINCT run_id FROM results") == [("2026-03-01/audit",)]
    shutil.rmtree(tmp_path / "results")
    with pytest.raises(AuditError, match="none of their tables"), open_session(str(tmp_path)):
        pass


def test_a_table_that_goes_meanwhile_or_is_damaged(tmp_path: Path) -> None:
    folder, _ = write_night(str(tmp_path), Night(LAST, rows=24))
    with open_session(str(tmp_path)) as session:
        delete(folder.results)
        with pytest.raises(AuditError, match=r"audit\.parquet") as refused:
            rows(session, "SELECT count(uri) FROM results")
        assert refused.value.code == exits.USAGE
    write_bytes(folder.results, b"PAR1 no table PAR1")
    with pytest.raises(AuditError, match=r"audit\.parquet"), open_session(str(tmp_path)):
        pass


def test_a_table_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    """Footers and blocks are kept for the next question, but not those of a file that is another one by now."""
    night = Night(LAST, rows=600)
    write_night(str(tmp_path), night)
    with open_session(str(tmp_path)) as session:
        for seed in (0, 1, 2):
            write_night(str(tmp_path), replace(night, seed=seed))
            scores = [row["score"] for row in table(str(tmp_path)) if row["score"] is not None]
            assert rows(session, "SELECT count(score), max(score) FROM results") == [(len(scores), max(scores))]


def test_an_interrupt_ends_the_statement_only(session: Session) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process beside others may ignore it
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            rows(session, "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")
    finally:
        signal.signal(signal.SIGINT, before)
    assert rows(session, "SELECT 1") == [(1,)]


def test_a_version_that_is_being_made_is_told_of(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night(LAST, rows=24))
    record.unfinished = Unfinished(command="rethreshold", rule="conformal:0.02")
    record.save(folder)
    with open_session(str(tmp_path)) as session:
        assert [doubt for doubt in session.doubts if "finish it with line-audit rethreshold" in doubt]
        assert rows(session, "SELECT unfinished FROM runs") == [("rethreshold",)]


def test_names_of_further_columns_that_the_views_have(tmp_path: Path) -> None:
    odd = {"run_date": "k", "Run_Name": "l", "filename": "f", 'a "b"; DROP VIEW runs': "x", "file": 1}
    folder, _ = write_night(str(tmp_path), Night(LAST, rows=24, more=odd))
    assert isinstance(read_record(folder), object)
    with open_session(str(tmp_path)) as session:
        found = rows(
            session, 'SELECT DISTINCT run_date, run_name, filename, "a ""b""; DROP VIEW runs", file FROM results'
        )
        assert found == [(NIGHT, "audit", "f", "x", 1)]
        (answer,) = session.answers("SELECT * FROM results LIMIT 1")
        assert answer.columns.count("run_date") == 1
        assert "Run_Name" not in answer.columns


@pytest.mark.parametrize(
    ("first", "second", "read"),
    [
        (1, "a", {"1", "a"}),
        (1, 2.5, {1.0, 2.5}),
        (1, [2, 3], {"1", "[2, 3]"}),
        ("a", ["b"], {"a", "[b]"}),
        (7, datetime(2026, 3, 1, tzinfo=UTC), {"7", "2026-03-01 00:00:00+00"}),
        (b"x", 5, {"x", "5"}),
        (True, 2.5, {"true", "2.5"}),
        (date(2026, 3, 1), datetime(2026, 3, 2, tzinfo=UTC), {datetime(2026, 3, n, tzinfo=UTC) for n in (1, 2)}),
    ],
)
def test_a_column_of_two_types_is_read_in_both_nights(tmp_path: Path, first: Any, second: Any, read: set[Any]) -> None:
    for day, (value, other) in enumerate(((first, 1), (second, "b")), start=1):
        write_night(str(tmp_path), Night(f"2026-03-0{day}", rows=24, more={"Oven": value, f"only_{day}": other}))
    with open_session(str(tmp_path)) as session:
        assert {one for (one,) in rows(session, "SELECT DISTINCT oven FROM results")} == read
        (answer,) = session.answers("SELECT * FROM results")
        assert len(list(answer.rows)) == 48
        assert answer.columns[:2] == ["run_date", "run_name"]
        assert [one for one in answer.columns if one.startswith("only_")] == ["only_2", "only_1"]


def test_structs_of_two_nights_have_the_fields_of_both(tmp_path: Path) -> None:
    for day, value in ((1, {"a": 1}), (2, {"b": "x"})):
        write_night(str(tmp_path), Night(f"2026-03-0{day}", rows=24, more={"more": value}))
    assert set(ask(str(tmp_path), "SELECT DISTINCT more.a, more.b FROM results")) == {(1, None), (None, "x")}


def test_hostile_values_are_values(tmp_path: Path) -> None:
    value = "'; DROP VIEW runs; -- \x1b[31m[bold]\n{{ 7 * 7 }}"
    write_night(str(tmp_path), Night(LAST, rows=24, more={"note": value}))
    assert ask(str(tmp_path), "SELECT DISTINCT note FROM results") == [(value,)]


def test_the_folder_of_a_run_is_no_output(plant: str) -> None:
    with (
        pytest.raises(AuditError, match="there is no committed run"),
        open_session(RunFolder(plant, LAST, "audit").uri),
    ):
        pass
