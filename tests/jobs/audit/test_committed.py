"""Which runs of an output are committed, and how a run is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.audit import exits
from jobs.audit.committed import committed, committed_runs, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.record import FileDigest, Published, Unfinished
from jobs.storage import delete, read_bytes, write_bytes
from tests.nights import CATEGORIES, Night, night_table, write_night


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """25 nights of line A, every fifth one of line B too; of the last one, nothing is committed."""
    place = str(tmp_path_factory.mktemp("nights"))
    for day in range(1, 26):
        write_night(place, Night(f"2026-03-{day:02d}", "a", rows=24))
        if day % 5 == 0:
            write_night(place, Night(f"2026-03-{day:02d}", "b", rows=24))
    folder, _ = write_night(place, Night("2026-03-26", "a", rows=24))
    delete(folder.success)
    return place


def test_all_that_are_committed_in_order(output: str) -> None:
    found = [folder.run_id for folder, _ in committed_runs(output)]
    assert len(found) == 30
    assert found == sorted(found)
    assert found[-2:] == ["2026-03-25/a", "2026-03-25/b"]


def test_the_last_dates_of_a_name_before_one(output: str) -> None:
    found = committed_runs(output, "b", until="2026-03-25", last=3)
    assert [record.run_id for _, record in found] == ["2026-03-10/b", "2026-03-15/b", "2026-03-20/b"]
    every = committed_runs(output, until="2026-03-06", last=2)
    assert [record.run_id for _, record in every] == ["2026-03-04/a", "2026-03-05/a", "2026-03-05/b"]
    assert committed_runs(output, "c") == []


def test_a_record_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    folder, _ = write_night(str(tmp_path), Night("2026-03-01", rows=24))
    write_bytes(folder.record, read_bytes(folder.record)[:100])
    with pytest.raises(AuditError, match=r"run\.json is not a run record .* use the version that wrote it") as caught:
        committed_runs(str(tmp_path))
    assert caught.value.code == exits.USAGE  # no retry makes it another


def test_whoever_reads_a_run_with_an_unfinished_version_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=24))
    assert committed(folder) == record and capsys.readouterr().err == ""
    table = FileDigest.of(Path(folder.results))
    left = record.model_copy(
        update={"unfinished": Unfinished(command="retry-failed"), "published": Published(table=table, digests=table)}
    )
    left.save(folder)
    assert committed(folder) == left
    assert "retry-failed" in capsys.readouterr().err
    assert committed(folder, "retry-failed") == left and capsys.readouterr().err == ""
    with pytest.raises(AuditError, match="retry-failed"):
        committed(folder, "rethreshold")


def test_the_folder_of_a_run_must_be_named() -> None:
    assert run_folder("s3://plant/audit/runs/2026-03-01/a/").results == (
        "s3://plant/audit/results/run_date=2026-03-01/a.parquet"
    )
    with pytest.raises(AuditError, match="give <output>/runs/<date>/<name>") as told:
        run_folder("s3://plant/audit/2026-03-01")
    assert told.value.code == exits.USAGE


def test_a_night_is_what_an_audit_publishes(tmp_path: Path) -> None:
    night = Night("2026-03-01", rows=6000, pictures=5, louder={"L3": 2.0})
    folder, record = write_night(str(tmp_path), night)
    table = pq.ParquetFile(folder.results).read()
    assert table.equals(night_table(folder, night))
    rows = table.to_pylist()
    shown = [row for row in rows if row["overlay_path"]]
    assert len(shown) == 5
    assert all(Path(row["overlay_path"]).is_file() and Path(row["heatmap_path"]).is_file() for row in shown)
    quiet = [row for row in rows if row["line"] != "L3" and row["status"] == "scored"]
    assert 0.005 < sum(row["decision"] == "anomalous" for row in quiet) / len(quiet) < 0.02
    loud = [row for row in rows if row["line"] == "L3" and row["status"] == "scored"]
    assert sum(row["decision"] == "anomalous" for row in loud) / len(loud) > 0.2
    assert set(record.counts["scored_by_category"]) == set(CATEGORIES)
    assert record.counts["rows"] == 6000
