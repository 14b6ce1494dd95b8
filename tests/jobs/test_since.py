"""What is new since the last run: from a day before it on, without what it and later ones have seen."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.since import MARGIN, resolve_since
from jobs.manifest.times import parse_since
from jobs.storage import write_bytes
from manifests.schema import ManifestError

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


def run(place: str, day: int, images: list[str], name: str = "audit", hours: float = 0, **left_out: int) -> None:
    """A committed run of that day, begun at noon or so much later."""
    folder = RunFolder(place, f"2026-03-{day:02d}", name)
    record(folder, NOON + timedelta(days=day - 14, hours=hours), left_out).save(folder)
    file = io.BytesIO()
    pq.write_table(pa.table({"image_id": images, "score": [0.5] * len(images)}), file)
    write_bytes(folder.results, file.getvalue())
    write_bytes(folder.success, b"")


def record(folder: RunFolder, at: datetime, left_out: dict[str, int]) -> RunRecord:
    return RunRecord(
        run_id=folder.run_id,
        manifest="m.csv",
        source_sha256="",
        bundle="b",
        device="cpu",
        fingerprint="",
        parts={},
        frozen={"left_out": left_out},
        results=folder.results,
        created_at=at.isoformat(),
    )


def seen(path: Path | None) -> list[str]:
    assert path is not None
    return sorted(pq.read_table(path)["image_id"].to_pylist())


def test_nothing_before_means_that_all_is_new(place: str, tmp_path: Path) -> None:
    assert resolve_since("last-run", place, "audit", tmp_path) is None
    run(place, 13, ["a"], name="other")
    assert resolve_since("last-run", place, "audit", tmp_path) is None
    unfinished = RunFolder(place, "2026-03-13", "audit")
    record(unfinished, NOON, {}).save(unfinished)
    assert resolve_since("last-run", place, "audit", tmp_path) is None


def test_the_last_run_and_those_within_the_margin_have_seen(place: str, tmp_path: Path) -> None:
    run(place, 12, ["long ago"])
    run(place, 14, ["b", "c"], hours=-23.9)
    run(place, 15, ["d"], hours=-24)
    found = resolve_since("last-run", place, "audit", tmp_path)
    assert found is not None
    assert found.cut == NOON - MARGIN
    assert seen(found.seen) == ["b", "c", "d"]


def test_a_run_for_an_earlier_date_that_came_last_is_the_last(place: str, tmp_path: Path) -> None:
    run(place, 14, ["a"])
    run(place, 1, ["caught up"], hours=24 * 20)  # on the 21st, for the 1st
    found = resolve_since("last-run", place, "audit", tmp_path)
    assert found is not None
    assert found.cut == datetime(2026, 3, 20, 12, tzinfo=UTC)
    assert seen(found.seen) == ["caught up"]


@pytest.mark.parametrize("part", ["limit", "sample"])
def test_a_run_of_a_part_is_not_the_last_but_has_seen(place: str, tmp_path: Path, part: str) -> None:
    run(place, 13, ["a"], where=5, sample=0, limit=0)
    run(place, 14, ["b"], **{part: 1})
    found = resolve_since("last-run", place, "audit", tmp_path)
    assert found is not None
    assert found.cut == NOON - timedelta(days=2)
    assert seen(found.seen) == ["a", "b"]


def test_a_time_is_a_time(place: str, tmp_path: Path) -> None:
    run(place, 14, ["a"])
    found = resolve_since("2026-03-14T13:00+01:00", place, "audit", tmp_path)
    assert found is not None
    assert (found.cut, found.seen) == (NOON, None)
    assert parse_since("2026-03-14") == datetime(2026, 3, 14, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "  ", "yesterday", "Last-Run", "2026-02-30", "1712121512034"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match=r"--since.*write last-run, or a time such as"):
        parse_since(text)
