"""A night's numbers against its table, and what is said of quiet nights and of one with a line that drifts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.audit.record import RunFolder, RunRecord
from jobs.database import results_database
from jobs.report import rates, shifts
from jobs.report.aggregates import MOST_GROUPS, MOST_LINES, Aggregates, aggregate, view
from jobs.report.findings import Findings, findings
from jobs.report.grid import counted
from jobs.storage import upload
from tests.nights import (
    CATEGORIES,
    LINES,
    SCALES,
    SHAPE,
    THRESHOLDS,
    Night,
    calibration_scores,
    night_table,
    write_night,
)

ROWS = 2400
CALIBRATION = {category: calibration_scores(category) for category in CATEGORIES}


def numbers(folder: RunFolder, record: RunRecord) -> Aggregates:
    with results_database(folder.results) as connection:
        view(connection, folder.results)
        return aggregate(connection, record)


def drawn(night: Night) -> Aggregates:
    """The numbers of a night that is not written anywhere."""
    folder = RunFolder("/nowhere", night.run_date, night.name)
    with results_database() as connection:
        connection.register("rows", night_table(folder, night))
        return aggregate(connection, RECORD[0])


RECORD: list[RunRecord] = []


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunRecord]:
    found = write_night(str(tmp_path_factory.mktemp("night")), Night("2026-03-21", rows=ROWS, failed=0.02))
    RECORD[:] = [found[1]]
    return found


@pytest.fixture(scope="module")
def earlier(night: tuple[RunFolder, RunRecord]) -> list[Aggregates]:
    return [drawn(Night(f"2026-03-{day:02d}", rows=ROWS)) for day in range(1, 13)]


def judged(one: Aggregates, earlier: list[Aggregates], calibration: shifts.Calibration | None = None) -> Findings:
    return findings(RECORD[0], one, earlier, calibration, "none is given")


def test_numbers_are_those_of_the_table(night: tuple[RunFolder, RunRecord]) -> None:
    folder, record = night
    found, rows = numbers(folder, record), pq.read_table(folder.results, partitioning=None).to_pylist()
    assert found.total.model_dump() == {**Counter(row["decision"] for row in rows), "duplicates": 0}
    assert found.total.decided + found.total.failed == ROWS
    by = Counter((row["line"], row["camera"], row["decision"]) for row in rows)
    for group in found.groups["camera"]:
        for decision in ("normal", "anomalous", "review", "failed"):
            assert getattr(group.counts, decision) == by[(*group.names, decision)]
    assert len(found.groups["camera"]) == 8 and [one.names for one in found.groups["line"]] == [(n,) for n in LINES]
    failed = {one.names[0]: one.counts.failed for one in found.groups["category"]}
    assert failed == record.counts["failed_by_category"]
    assert found.thresholds == THRESHOLDS
    for scores in found.scores:
        theirs = [row for row in rows if row["category"] == scores.category and row["score"] is not None]
        assert np.array_equal(scores.histogram.dense(), counted([row["score"] for row in theirs]))
        lines = {one.line: one.histogram.dense() for one in scores.lines}
        assert scores.above == sum(row["score"] >= row["threshold"] for row in theirs) > 0
        for line in scores.lines:
            assert line.above == sum(row["line"] == line.line and row["score"] >= row["threshold"] for row in theirs)
        for name in LINES:
            assert np.array_equal(lines[name], counted([row["score"] for row in theirs if row["line"] == name]))
    assert Aggregates.model_validate_json(found.model_dump_json()) == found
    assert found.are_of(record)
    assert not found.are_of(record.model_copy(update={"rethresholds": [{}]}))


def test_names_without_end_do_not_make_numbers_without_end(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=1200))
    table = pq.read_table(folder.results, partitioning=None)
    names = [f"line {(i + i // 300 * 100) % 300}" for i in range(len(table))]  # each in every category
    at = table.schema.get_field_index("line")
    table = table.set_column(at, table.schema.field(at), [names])
    pq.write_table(table, tmp_path / "t")
    upload(tmp_path / "t", folder.results)
    found, rows = numbers(folder, record), table.to_pylist()
    assert len(found.groups["line"]) == len(found.groups["camera"]) == MOST_GROUPS
    assert sum(len(one.lines) for one in found.scores) == MOST_LINES
    assert found.not_kept == {
        "line": 100,
        "camera": len({(row["line"], row["camera"]) for row in rows}) - MOST_GROUPS,
        "scores of a category on a line": len({(row["category"], row["line"]) for row in rows if row["score"]})
        - MOST_LINES,
    }
    assert found.total.images == 1200


def test_the_share_above_the_threshold_is_exact(night: tuple[RunFolder, RunRecord]) -> None:
    """A threshold among the scores: the bin of the grid that it lies in has some on either side."""
    found = drawn(Night("2026-03-01", rows=ROWS, thresholds={name: SHAPE * SCALES[name] for name in CATEGORIES}))
    scored = {one.category: sum(one.histogram.counts) for one in found.scores}
    shares = {one.category: one.share_above for one in shifts.judged(found, [], CALIBRATION, "").compared}
    assert sum(round(shares[name] * scored[name]) for name in CATEGORIES) == found.total.anomalous > 0.3 * ROWS


def test_cameras_without_names_are_no_groups(night: tuple[RunFolder, RunRecord]) -> None:
    found = drawn(Night("2026-03-01", rows=600))
    nameless = found.groups | {
        "camera": tuple(one.model_copy(update={"names": (one.names[0], "")}) for one in found.groups["camera"][::2])
    }
    kinds = {kind for _, kind, _ in rates.series(found.model_copy(update={"groups": nameless}), [])}
    assert kinds == {"all", "category", "line"}


def without(one: Aggregates, line: str, *cameras: str) -> Aggregates:
    """A night in which a line sent nothing, or only these cameras of it did not."""
    groups = dict(one.groups)
    if not cameras:
        groups["line"] = tuple(group for group in groups["line"] if group.names != (line,))
    gone = {(line, camera) for camera in cameras or ("top", "side")}
    groups["camera"] = tuple(group for group in groups["camera"] if group.names not in gone)
    return one.model_copy(update={"groups": groups})


def test_a_line_or_camera_that_sent_nothing_is_told(earlier: list[Aggregates]) -> None:
    night = drawn(Night("2026-04-01", rows=ROWS, seed=4))
    assert judged(night, earlier).rates.silent == ()
    found = judged(without(night, "L2"), earlier)
    assert [(one.of, one.names) for one in found.rates.silent] == [("line", ("L2",))]  # and not its cameras too
    assert (found.verdict, found.rates.verdict) == ("watch", "watch")
    assert found.sentences[0] == "No image of line L2, though each of the last 8 nights had some."
    found = judged(without(night, "L2", "top"), earlier)
    assert [(one.of, one.names) for one in found.rates.silent] == [("camera", ("L2", "top"))]
    sometimes = [*earlier[:-1], without(earlier[-1], "L2")]
    assert judged(without(night, "L2"), sometimes).rates.silent == ()
    assert judged(without(night, "L2"), earlier[:7]).rates.silent == ()
    more = without(night, "L2").model_copy(update={"not_kept": {"line": 3, "camera": 9}})
    assert judged(more, earlier).rates.silent == ()


def test_a_quiet_night_is_quiet(earlier: list[Aggregates]) -> None:
    said = [judged(drawn(Night("2026-04-01", rows=ROWS, seed=seed)), earlier, CALIBRATION) for seed in range(1, 13)]
    assert [one.drift.verdict for one in said].count("none") == 12  # one in a hundred may be called
    outside = sum(len(one.rates.outside) for one in said)
    assert outside <= 2 * sum(one.rates.by_chance for one in said)
    assert all(one.rates.by_chance == pytest.approx(0.0027 * 48, abs=1e-3) for one in said)
    quiet = [one for one in said if one.verdict == "quiet"]
    assert len(quiet) >= 9
    assert all(one.sentences == ("Nothing unusual.",) for one in quiet)


def test_a_line_that_drifts_is_called(earlier: list[Aggregates]) -> None:
    found = judged(drawn(Night("2026-04-01", rows=ROWS, seed=1, louder={"L3": 1.5})), earlier, CALIBRATION)
    assert (found.verdict, found.drift.verdict, found.rates.verdict) == ("alarm", "drift", "alarm")
    called = {(one.category, one.line) for one in found.drift.called}
    assert {(category, line) for category, line in called if line} == {(category, "L3") for category in CATEGORIES}
    of_line = [one for one in found.drift.compared if one.line == "L3"]
    assert all(one.ratio == pytest.approx(1.5, rel=0.2) for one in of_line)
    assert found.sentences[0].startswith("Scores have drifted: ") and "on line L3, median 1." in found.sentences[0]
    high = {(one.of, one.names) for one in found.rates.outside if one.measure == "anomalous"}
    assert {("line", ("L3",)), ("camera", ("L3", "top")), ("camera", ("L3", "side")), ("all", ())} <= high
    assert all(names[0] == "L3" for kind, names in high if kind in ("line", "camera"))


def test_calibration_is_compared_below_the_threshold(earlier: list[Aggregates]) -> None:
    """Defects are not drift: a tenth of the parts far above the threshold moves what lies below it by nothing."""
    quiet = drawn(Night("2026-04-01", rows=ROWS, seed=3))
    defects = [
        replace_scores(scores, counted([5 * scores.threshold] * (sum(scores.histogram.counts) // 4)))
        for scores in quiet.scores
    ]
    night = quiet.model_copy(update={"scores": tuple(defects)})
    found = shifts.judged(night, [], CALIBRATION, "")
    assert found.verdict == "none"
    assert {(one.against, one.line) for one in found.compared} == {("calibration", None)}
    assert all(one.share_above == pytest.approx(0.2, abs=0.03) for one in found.compared)
    assert sum(one.reference for one in found.compared) == sum(
        score < THRESHOLDS[category] for category in CATEGORIES for score in CALIBRATION[category]
    )
    moved = drawn(Night("2026-04-01", rows=ROWS, seed=3, louder=dict.fromkeys(LINES, 1.6)))
    assert {one.verdict for one in shifts.judged(moved, [], CALIBRATION, "").compared} == {"drift"}
    # More than half above the threshold: all scores are compared.
    gone = drawn(Night("2026-04-01", rows=ROWS, seed=3, louder=dict.fromkeys(LINES, 4.0)))
    found = shifts.judged(gone, [], CALIBRATION, "")
    assert {one.verdict for one in found.compared} == {"drift"}
    assert all(one.reference == 200 and one.share_above > 0.5 for one in found.compared)


def replace_scores(scores: shifts.CategoryScores, more: np.ndarray) -> shifts.CategoryScores:
    histogram = shifts.Histogram.of(scores.histogram.dense() + more)
    return scores.model_copy(update={"histogram": histogram, "above": scores.above + int(more.sum())})


def test_nights_of_another_bundle_are_not_compared(earlier: list[Aggregates]) -> None:
    night = drawn(Night("2026-04-01", rows=ROWS, seed=1))
    other = [one.model_copy(update={"scoring": one.scoring.model_copy(update={"bundle": "x"})}) for one in earlier]
    found = judged(night, [*other, *earlier[:3]], None)
    assert (found.drift.nights, found.drift.other_scoring, found.rates.other_decisions) == (3, 12, 12)
    assert found.drift.compared == ()
    assert {one.why for one in found.drift.not_compared} == {
        "none is given",
        "3 earlier nights with scores, 8 are needed",
    }
    limited = {one.measure for one in found.rates.rates if one.limits}
    assert limited == {"failed"}  # images fail whatever the bundle is
    thresholds = tuple(one.model_copy(update={"threshold": 2 * one.threshold}) for one in night.scores)
    found = judged(night.model_copy(update={"scores": thresholds}), earlier, None)
    assert found.rates.other_decisions == 12
    assert found.drift.nights == 12  # scores are the same whatever the threshold is


def test_with_few_nights_it_is_said_that_there_are_few(earlier: list[Aggregates]) -> None:
    found = judged(earlier[7], earlier[:7])
    assert (found.verdict, found.rates.by_chance) == ("unknown", 0)
    assert found.sentences[0] == "Nothing could be compared, so whether the night was usual cannot be told."
    assert found.sentences[1:] == (
        "There are 7 earlier nights of this name, too few to say what is usual (8 are needed).",
    )
    assert {one.without for one in found.rates.rates} == {"7 earlier nights, 8 are needed"}
    assert judged(earlier[8], earlier[:8]).rates.by_chance > 0


def test_an_exceeded_budget_is_an_alarm(earlier: list[Aggregates]) -> None:
    record = RECORD[0].model_copy(update={"exit_code": 3, "exit_reason": "40 of 1000"})
    found = findings(record, earlier[0], [], None, "")
    assert found.verdict == "alarm"
    assert found.sentences[0] == "The error budget is exceeded: 40 of 1000."


def test_duplicates_are_no_failures(night: tuple[RunFolder, RunRecord], tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=1000, failed=0.05))
    table = pq.read_table(folder.results, partitioning=None)
    changed = [
        ("manifest", "duplicate") if i % 2 and row["status"] == "failed" else (row["error_stage"], row["error_code"])
        for i, row in enumerate(table.to_pylist())
    ]
    for name, values in (("error_stage", [a for a, _ in changed]), ("error_code", [b for _, b in changed])):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), [values])
    pq.write_table(table, tmp_path / "t")
    upload(tmp_path / "t", folder.results)
    found = numbers(folder, record)
    duplicates = sum(pair == ("manifest", "duplicate") for pair in changed)
    assert 0 < found.total.duplicates == duplicates < 50
    assert found.total.images == 1000 - duplicates
    failed = next(
        one
        for one in rates.judged(found, [], rates.series(found, [])).rates
        if (one.measure, one.of) == ("failed", "all")
    )
    assert (failed.count, failed.rows) == (found.total.failed, 1000 - duplicates)
