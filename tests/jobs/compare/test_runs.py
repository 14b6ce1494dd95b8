"""Which runs and versions can be compared, as what, and what is said of how they were made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import FileDigest, Published, RunFolder, Unfinished, read_record
from jobs.compare.run import Comparison, Question, Settings, compare
from jobs.storage import copy, delete
from tests.jobs.audit.tables import make_version_1
from tests.jobs.compare.hand import by_hand, failed, publish, row
from tests.nights import THRESHOLDS, Night, write_night


def asked(*runs: str, **settings: Any) -> Comparison:
    return compare(Settings(*runs, **settings))


def refused(*runs: str, **settings: Any) -> AuditError:
    with pytest.raises(AuditError) as told:
        asked(*runs, **settings)
    return told.value


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """Two runs of one image, which is anomalous in the second."""
    return by_hand(str(tmp_path), "a", [row("x", 0.5)]), by_hand(str(tmp_path), "b", [row("x", 1.5)])


def test_a_run_that_is_not_committed(two: tuple[str, str], tmp_path: Path) -> None:
    delete(RunFolder.at(two[1]).success)
    told = refused(*two)
    assert (told.code, told.message) == (exits.USAGE, f"{two[1]}: the run is not committed; finish it with audit")
    told = refused(str(tmp_path / "runs" / "2026-03-01" / "none"), two[0])
    assert told.code == exits.USAGE and "there is no such run" in told.message
    assert "is not the folder of a run" in refused(two[0], str(tmp_path)).message


def test_a_run_of_which_a_next_version_is_half_there(two: tuple[str, str]) -> None:
    folder = RunFolder.at(two[1])
    record = read_record(folder)
    assert record is not None
    table = FileDigest.of(Path(folder.results))
    record.published, record.unfinished = Published(table=table, digests=table), Unfinished(command="retry-failed")
    record.save(folder)
    assert asked(*two).shared == 1  # nothing of it is published yet
    publish(folder, [row("x", 0.7)])
    told = refused(*two)
    assert told.code == exits.USAGE and "finish it with line-audit retry-failed" in told.message


def test_a_table_that_is_gone_or_damaged(two: tuple[str, str]) -> None:
    table = Path(RunFolder.at(two[0]).results)
    data = table.read_bytes()
    for damage in (data[:-20], b"", data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :]):
        table.write_bytes(damage)
        told = refused(*two)
        assert told.code == exits.FAILED and f"{table}: the table cannot be read" in told.message
    table.unlink()
    assert f"{table}: there is no such table" in refused(*two).message


def test_an_image_with_two_rows_is_damage(two: tuple[str, str]) -> None:
    publish(RunFolder.at(two[0]), [row("x", 0.5), row("x", 0.6)])
    told = refused(*two)
    assert told.code == exits.FAILED and "has more than one row; line-audit verify" in told.message


def test_versions_of_one_run(two: tuple[str, str]) -> None:
    folder = RunFolder.at(two[0])
    copy(folder.results, folder.earlier(1))
    publish(folder, [row("x", 1.25, threshold=0.8)])
    record = read_record(folder)
    assert record is not None
    record.rethresholds.append({"version": 2, "rule": "conformal:0.05", "thresholds": {"bottle": 0.8}})
    record.save(folder)
    found = asked(two[0], two[0], version_a=1)
    assert (found.a.version, found.b.version, found.a.earlier, found.b.earlier) == (1, 2, True, False)
    assert found.images is not None and found.images.decisions == {"normal": {"anomalous": 1}}
    assert {one.what: (one.a, one.b) for one in found.differing} == {
        "threshold of bottle": ("2.0", "0.8"),
        "thresholds set by": ("the bundle", "rethreshold conformal:0.05"),
    }
    assert asked(two[0], two[0], version_a=2, version_b=2).differing == []
    told = refused(two[0], two[0], version_b=3)
    assert told.code == exits.USAGE and "no version 3 of the results; it has versions 1 to 2" in told.message
    assert "it has only version 1" in refused(*two, version_b=2).message


def test_a_category_that_only_one_side_has_rows_of_has_no_other_threshold(two: tuple[str, str]) -> None:
    differing = {one.what for one in asked(*two).differing}
    publish(RunFolder.at(two[0]), [row("x", 0.5), row("y", 0.5, category="cap")])
    assert {one.what for one in asked(*two).differing} == differing


def test_a_table_of_the_first_schema(tmp_path: Path) -> None:
    a, _ = write_night(str(tmp_path), Night("2026-03-01", "a", rows=300))
    b, _ = write_night(str(tmp_path), Night("2026-03-01", "b", rows=300))
    make_version_1(Path(a.results))
    found = asked(a.uri, b.uri)
    assert found.images is not None and found.images.changed.count == 0 and found.shared == 300
    assert [(one.what, one.a, one.b) for one in found.differing] == [("schema version", "1", "2")]
    make_version_1(Path(b.results))
    assert asked(b.uri, a.uri).differing == []
    shutil.copy(tmp_path / "results" / "run_date=2026-03-01" / "a.parquet", tmp_path / "kept")
    write_night(str(tmp_path), Night("2026-03-01", "b", rows=300))
    make_version_1(Path(b.results), version="9")
    told = refused(a.uri, b.uri)
    assert told.code == exits.FAILED and "schema version 9 is not one that this code knows (1 to 2)" in told.message


@pytest.mark.parametrize(
    ("a", "b", "question"),
    [("xyz", "xyz", "images"), ("wxyz", "xy", "images"), ("wxyz", "xyuv", "images"), ("xyz", "xuv", "rates"),
     ("xyz", "uvw", "rates"), ("abcdefgh", "h", "images")],
)  # fmt: skip
def test_the_question_is_told_by_the_images(tmp_path: Path, a: str, b: str, question: Question) -> None:
    runs = [by_hand(str(tmp_path), name, [row(image, 0.5) for image in of]) for name, of in (("a", a), ("b", b))]
    found = asked(*runs)
    assert (found.question, found.asked, found.shared) == (question, False, len(set(a) & set(b)))
    other: Question = "rates" if question == "images" else "images"
    if found.shared:
        assert asked(*runs, question=other).question == other
    else:
        told = refused(*runs, question=other)
        assert told.code == exits.USAGE and "compare them with --as rates" in told.message


def test_a_run_of_failures_alone(tmp_path: Path) -> None:
    runs = [by_hand(str(tmp_path), name, [failed("x"), failed("y")]) for name in "ab"]
    found = asked(*runs)
    assert found.images is not None and found.images.changed.rate is None
    assert found.loaded_a.thresholds == {}


def test_what_two_runs_were_made_with(tmp_path: Path) -> None:
    a, record_a = write_night(str(tmp_path), Night("2026-03-01", "a", rows=300))
    night = Night("2026-03-01", "b", rows=300, bundle_digest="c" * 64, thresholds=THRESHOLDS | {"pill": 0.5})
    b, record_b = write_night(str(tmp_path), night)
    record_a.parts["settings"]["where"] = "line = 'L1'"
    record_b.parts |= {"precision": "float32", "code": {"source": "e" * 64}}
    record_b.parts["settings"] |= {"trust_declared": True, "sample": "1%"}
    record_b.frozen["left_out"] = {"sample": 99}
    record_a.save(a)
    record_b.save(b)
    found = asked(a.uri, b.uri)
    assert {one.what: (one.a, one.b) for one in found.differing} == {
        "bundle": ("b" * 64, "c" * 64),
        "precision": ("bfloat16", "float32"),
        "threshold of pill": (repr(THRESHOLDS["pill"]), "0.5"),
        "filter where": ("line = 'L1'", None),
        "filter sample": (None, "1%"),
        "left out by filters": (None, '{"sample": 99}'),
        "setting trust_declared": ("false", "true"),
        "code: source": (None, "e" * 64),
    }


def test_runs_of_several_outputs_with_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "a[1]*? #%20"
    found = asked(by_hand(str(odd), "a", [row("x", 0.5)]), by_hand(str(tmp_path / "other"), "b", [row("x", 0.5)]))
    assert found.shared == 1
