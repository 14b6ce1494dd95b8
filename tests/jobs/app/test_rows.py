"""The rows of a run: which ones, in which order, a page at a time, of the version that is published."""

from __future__ import annotations

import gc
from pathlib import Path

import gradio as gr
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.app.browsing import Browsing
from jobs.app.rows import NEIGHBOURS, PAGE_ROWS, choices, neighbours, page, whole_row
from jobs.app.runs import KEPT, RunName, Runs
from jobs.audit.exits import AuditError
from jobs.review_files import read_queue
from jobs.storage import delete, download, read_bytes, write_bytes
from tests.jobs.app.conftest import EVIL, Archive, publish
from tests.nights import Night, write_night


def test_pages_hold_every_row_once_worst_first(archive: Archive) -> None:
    run = Runs(archive.output).open("2026-11-24", "audit")
    pages = [page(run.connection, {}, number) for number in range(1, 15)]
    assert [one.pages for one in pages] == [14] * 14 and [one.number for one in pages] == list(range(1, 15))
    found = [row for one in pages for row in one.rows]
    assert [row["margin"] for row in found] == [row["margin"] for row in archive.rows]
    assert sorted(row["row"] for row in found) == list(range(700))
    scored = sum(row["margin"] is not None for row in archive.rows)
    assert [row["row"] for row in found[:scored]] == [row["row"] for row in archive.rows[:scored]]
    assert page(run.connection, {}, 99).number == 14 and page(run.connection, {}, -3).number == 1


@pytest.mark.parametrize(
    "filters",
    [
        {"decision": ["anomalous", "review"]},
        {"line": [EVIL], "camera": ["top"]},
        {"category": ["pill"], "line": ["L1", "L2"], "decision": ["normal"]},
        {"line": ["' OR 1=1 --"]},
    ],
)
def test_filters_leave_the_rows_that_have_the_values(archive: Archive, filters: dict[str, list[str | None]]) -> None:
    run = Runs(archive.output).open("2026-11-24", "audit")
    rows = [row | {"category": row["category"] or row["declared_category"]} for row in archive.rows]
    wanted = [row["row"] for row in rows if all(row[column] in values for column, values in filters.items())]
    found = page(run.connection, filters, 1)
    assert found.total == len(wanted)
    assert [row["row"] for row in found.rows] == wanted[:PAGE_ROWS] or None in [row["margin"] for row in found.rows]


def test_a_run_that_cannot_be_read_does_not_hide_the_others(archive: Archive) -> None:
    write_bytes(archive.folder.record, b"{}")
    events = Browsing(Runs(archive.output))
    with pytest.warns(UserWarning, match=r"run\.json is not a run record of this version"):
        dates, _ = events.begin()
    assert dates.choices == [("2026-11-24", "2026-11-24"), ("2026-11-23", "2026-11-23")] and dates.value is None
    assert events.choose_date("2026-11-23").value == "other"
    assert events.open("2026-11-23", "other")[0].name == "other"
    with pytest.raises(gr.Error, match=r"run\.json is not a run record"):
        events.choose_date("2026-11-24")


def test_the_line_above_the_rows_says_which_they_are(archive: Archive) -> None:
    events = Browsing(Runs(archive.output))
    name = events.runs.open("2026-11-24", "audit").name
    cells, line, number = events.show(name, 14, "all", "all", [], [], [], [])
    assert len(cells) == 50 and number == 14
    assert "Rows 651 to 700 of 700, worst first. Page 14 of 14." in line
    assert events.show(name, 3, "all", "all", ["=pill"], ["=L1"], ["=top"], ["=none of them"])[0] == []
    assert "<p>No row is like that.</p>" in events.show(name, 3, None, None, [], [], [], ["=none of them"])[1]


def test_rows_are_found_by_queue_and_by_verdict(archive: Archive) -> None:
    events = Browsing(Runs(archive.output))
    run = events.runs.open("2026-11-24", "audit")
    queue = read_queue("q", read_bytes(archive.folder.queue(1)))
    assert len(queue.sample) == 50 < len(queue.images) <= 100

    def shown(asked: str, said: str, *filters: list[str]) -> set[str]:
        cells = []
        for number in range(1, 20):
            page, _, at = events.show(run.name, number, asked, said, *(filters or [[]] * 4))
            if at != number:
                break
            cells += page
        assert len(cells) == len({row[0] for row in cells})
        return {row[-1] for row in cells}

    assert shown("queue", "all") == queue.images
    assert shown("sample", "all") == queue.sample
    decided = {row["image_id"] for row in archive.rows if row["decision"] != "failed"}
    assert shown("all", "none") == decided
    good, bad, doubtful = sorted(queue.sample)[:3]
    run.log.append({good: ("confirm", "good", "normal"), bad: ("confirm", "good", "normal")}, 1)
    run.log.append({bad: ("escape", "defective", "normal"), doubtful: ("unsure", "unsure", "normal")}, 1)
    assert [shown("all", said) for said in ("good", "defective", "unsure")] == [{good}, {bad}, {doubtful}]
    assert shown("all", "any") == {good, bad, doubtful}
    assert shown("all", "none") == decided - {good, bad, doubtful}
    assert shown("sample", "none") == queue.sample - {good, bad, doubtful}
    lines = {row["image_id"] for row in archive.rows if row["line"] == "L1"}
    assert shown("queue", "all", [], ["=L1"], [], []) == queue.images & lines != set()
    for asked, said in (("'; DROP TABLE ranked", "all"), ("all", "confirm")):
        with pytest.raises(gr.Error, match="choose one of All rows, "):
            shown(asked, said)
    delete(archive.folder.queue(1))
    with pytest.raises(gr.Error, match=r"there is no review queue; line-audit review queue .* makes it"):
        shown("queue", "all")


def test_a_value_that_is_missing_can_be_asked_for(archive: Archive, tmp_path: Path) -> None:
    table = pq.read_table(archive.folder.results)
    camera = pc.if_else(pc.equal(table["camera"], "side"), None, table["camera"])
    table = table.set_column(table.schema.get_field_index("camera"), "camera", camera)
    publish(archive.folder, archive.record, table, tmp_path)
    run = Runs(archive.output).open("2026-11-24", "audit")
    assert choices(run.connection, "camera") == ["top", None]
    sides = sum(row["camera"] == "side" for row in archive.rows)
    assert page(run.connection, {"camera": [None]}, 1).total == sides
    assert page(run.connection, {"camera": [None, "top"]}, 1).total == 700


def test_neighbours_are_next_in_score_within_the_category(archive: Archive) -> None:
    run = Runs(archive.output).open("2026-11-24", "audit")
    pills = [row["row"] for row in archive.rows if row["category"] == "pill" and row["score"] is not None]
    for at in (0, 1, 50, len(pills) - 1):
        found = [row["row"] for row in neighbours(run.connection, pills[at], "pill")]
        assert found == pills[max(0, at - NEIGHBOURS) : at] + pills[at + 1 : at + 1 + NEIGHBOURS]


def test_a_row_has_every_column_of_the_published_table(archive: Archive) -> None:
    run = Runs(archive.output).open("2026-11-24", "audit")
    for row in archive.rows[::97]:
        assert whole_row(run.connection, run.table, row["row"]) == {key: row[key] for key in row if key != "row"} | {
            "batch": "${document.title='taken'}{{7*7}}"
        }
    assert whole_row(run.connection, run.table, 700) is None


def test_committed_runs_of_a_folder_or_a_bucket(place: str) -> None:
    assert Runs(place).dates() == [] and Runs(place).latest() is None
    for run_date, name in (("2026-11-23", "b"), ("2026-11-24", "a"), ("2026-11-24", "c")):
        folder, _ = write_night(place, Night(run_date, name, rows=20))
    runs = Runs(place)
    assert runs.dates() == ["2026-11-24", "2026-11-23"] and runs.latest() == ("2026-11-24", "c")
    assert runs.names("2026-11-24") == ["a", "c"]
    assert page(runs.open("2026-11-24", "a").connection, {}, 1).total == 20
    assert runs.open("2026-11-24", "a") is runs.open("2026-11-24", "a")
    delete(folder.success)
    assert runs.names("2026-11-24") == ["a"]
    with pytest.raises(AuditError, match="the run is not committed"):
        runs.open("2026-11-24", "c")
    elsewhere = (f"../../{place.rpartition('/')[2]}/runs/2026-11-24", "a")
    for odd in (("2026-11-24", ".."), ("..", "a"), ("2026-11-24", "nobody"), ("2026-11-24", "a/"), elsewhere):
        with pytest.raises(AuditError):
            runs.open(*odd)


def test_a_new_version_is_told_of_and_the_old_one_stays_whole_meanwhile(archive: Archive, tmp_path: Path) -> None:
    runs = Runs(archive.output)
    old = runs.open("2026-11-24", "audit")
    table = pq.read_table(archive.folder.results)
    publish(archive.folder, archive.record, table.slice(0, 10), tmp_path)
    assert runs.held(old.name) is old and page(old.connection, {}, 1).total == 700
    new = runs.open("2026-11-24", "audit")
    assert page(new.connection, {}, 1).total == 10 and page(old.connection, {}, 1).total == 700
    with pytest.raises(AuditError, match="run 2026-11-24/audit has new results: choose it again"):
        runs.held(old.name)


def test_a_table_that_is_not_the_recorded_one_is_not_browsed(archive: Archive, tmp_path: Path) -> None:
    download(archive.folder.results, tmp_path / "table")
    pq.write_table(pq.read_table(tmp_path / "table").slice(1), tmp_path / "other")
    write_bytes(archive.folder.results, (tmp_path / "other").read_bytes())
    with pytest.raises(AuditError, match=r"audit\.parquet: not the table that run\.json tells of"):
        Runs(archive.output).open("2026-11-24", "audit")
    delete(archive.folder.results)
    with pytest.raises(AuditError, match="the published table is gone"):
        Runs(archive.output).open("2026-11-24", "audit")


def test_the_disk_holds_a_few_runs_only(tmp_path: Path) -> None:
    for n in range(KEPT + 2):
        write_night(str(tmp_path), Night(f"2026-11-{n + 1:02d}", rows=20))
    runs = Runs(str(tmp_path))
    tables = [runs.open(f"2026-11-{n + 1:02d}", "audit").table for n in range(KEPT + 2)]
    gc.collect()
    assert [table.exists() for table in tables] == [False, False] + [True] * KEPT
    again = runs.held(RunName("2026-11-01", "audit", 1, _sha(runs, "2026-11-01")))
    assert page(again.connection, {}, 1).total == 20


def _sha(runs: Runs, run_date: str) -> str | None:
    return runs.open(run_date, "audit").name.sha256


def test_tables_of_other_manifests_have_their_columns(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-11-24", rows=20))
    table = pq.read_table(folder.results).drop_columns("batch")
    for name in ("rowid", "row", "FILE_ROW_NUMBER", "filename", 'a"b'):
        table = table.append_column(name, pa.array(range(100, 120)))
    publish(folder, record, table, tmp_path)
    run = Runs(str(tmp_path)).open("2026-11-24", "audit")
    rows = page(run.connection, {}, 1).rows
    assert sorted(row["row"] for row in rows) == list(range(20)) != [row["row"] for row in rows]
    for row in rows:
        found = whole_row(run.connection, run.table, row["row"])
        assert found == table.slice(row["row"], 1).to_pylist()[0] and found["image_id"] == row["image_id"]
