"""What is new since the last run: from a day before it on, without what it and later ones have seen."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit.config import AuditConfig
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.since import MARGIN, resolve_since
from jobs.manifest.sources import Source
from jobs.manifest.times import parse_since
from jobs.storage import delete, write_bytes
from manifests.filters import Since
from manifests.readers import ManifestReader
from manifests.schema import ManifestError

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


LISTED = [("last_modified", pa.timestamp("us", "UTC"))]
RESULTS = pa.schema(
    [pa.field("image_id", pa.string(), nullable=False), pa.field("error_stage", pa.string()), *LISTED],
    {"line_audit.schema_version": "2"},
)


def run(
    place: str,
    day: int,
    images: list[str],
    name: str = "audit",
    hours: float = 0,
    settings: dict[str, Any] | None = None,
    unreadable: tuple[str, ...] = (),
    modified: datetime | None = None,
    **left_out: int,
) -> RunFolder:
    """A committed run of that day, begun at noon or so much later. modified: of its images, else when it began."""
    folder = RunFolder(place, f"2026-03-{day:02d}", name)
    began = NOON + timedelta(days=day - 14, hours=hours)
    record(folder, began, {"left_out": left_out}, settings).save(folder)
    stages = [None] * len(images) + ["manifest"] * len(unreadable)
    times = pa.array([modified or began] * len(stages), pa.timestamp("us", "UTC"))
    file = io.BytesIO()
    columns = [pa.array([*images, *unreadable], pa.string()), pa.array(stages, pa.string()), times]
    pq.write_table(pa.table(columns, schema=RESULTS), file)
    write_bytes(folder.results, file.getvalue())
    write_bytes(folder.success, b"")
    return folder


def record(
    folder: RunFolder, at: datetime, frozen: dict[str, Any], settings: dict[str, Any] | None = None
) -> RunRecord:
    return RunRecord(
        run_id=folder.run_id,
        manifest="s3://plant/images",
        source_sha256="",
        bundle="b",
        device="cpu",
        fingerprint="",
        parts={"settings": settings or {}},
        frozen=frozen,
        results=folder.results,
        created_at=at.isoformat(),
    )


def resolved(
    place: str, tmp_path: Path, since: str | None = "last-run", lists: bool = True, **settings: Any
) -> Since | None:
    """What --since means for a listing of s3://plant/images, or for a manifest that somebody has written."""
    config = AuditConfig(**{"manifest": "s3://plant/images", "bundle": "b", "output": place, **settings}, since=since)
    reader = SimpleNamespace(schema_extras=pa.schema(LISTED))
    return resolve_since(config, Source(cast(ManifestReader, reader), "", "", lists=lists), tmp_path)


def seen(found: Since | None) -> list[str]:
    assert found is not None and found.seen is not None
    return sorted(pq.read_table(found.seen)["image_id"].to_pylist())


def cut(found: Since | None) -> datetime | None:
    assert found is not None
    return found.cut


def test_nothing_before_means_that_all_is_new(place: str, tmp_path: Path) -> None:
    assert resolved(place, tmp_path) is None
    run(place, 13, ["a"], name="other")
    assert resolved(place, tmp_path) is None
    unfinished = RunFolder(place, "2026-03-13", "audit")
    record(unfinished, NOON, {"left_out": {}}).save(unfinished)
    assert resolved(place, tmp_path) is None


def test_the_last_run_and_those_within_the_margin_have_seen(place: str, tmp_path: Path) -> None:
    run(place, 12, ["long ago"])
    run(place, 14, ["b", "c"], hours=-23.9)
    run(place, 15, ["d"], hours=-24)
    found = resolved(place, tmp_path)
    assert cut(found) == NOON - MARGIN
    assert seen(found) == ["b", "c", "d"]


def test_a_run_for_an_earlier_date_that_came_last_is_the_last(place: str, tmp_path: Path) -> None:
    run(place, 14, ["a"])
    run(place, 1, ["caught up"], hours=24 * 20)  # on the 21st, for the 1st
    found = resolved(place, tmp_path)
    assert cut(found) == datetime(2026, 3, 20, 12, tzinfo=UTC)
    assert seen(found) == ["caught up"]


@pytest.mark.parametrize("part", ["limit", "sample"])
def test_a_run_of_a_part_is_not_the_last_but_has_seen(place: str, tmp_path: Path, part: str) -> None:
    run(place, 13, ["a"], where=5, sample=0, limit=0)
    run(place, 14, ["b"], **{part: 1})
    found = resolved(place, tmp_path)
    assert cut(found) == NOON - timedelta(days=2)
    assert seen(found) == ["a", "b"]


def test_a_limit_of_an_older_version_made_a_part(place: str, tmp_path: Path) -> None:
    folder = run(place, 14, ["a"])
    record(folder, NOON, {"rows": 1}, {"limit": 1}).save(folder)
    assert cut(resolved(place, tmp_path)) is None and seen(resolved(place, tmp_path)) == ["a"]
    record(folder, NOON, {"rows": 1}, {"limit": None}).save(folder)
    assert cut(resolved(place, tmp_path)) == NOON - MARGIN


@pytest.mark.parametrize(
    ("then", "now", "is_last"),
    [
        ({"where": "line = 'L1'"}, {}, False),
        ({"where": "line = 'L1'"}, {"where": "line = 'L2'"}, False),
        ({"where": "line = 'L1'"}, {"where": "line = 'L1'"}, True),
        ({}, {"where": "line = 'L1'"}, True),
        ({"also": ["s3://plant/more"]}, {"also": ("s3://plant/more",)}, True),
        ({}, {"also": ("s3://plant/more",)}, False),
        ({}, {"manifest": "s3://plant"}, False),
        ({}, {"pattern": "{line}/*"}, False),
    ],
)
def test_the_last_run_is_one_that_was_asked_for_as_much(
    place: str, tmp_path: Path, then: dict[str, Any], now: dict[str, Any], is_last: bool
) -> None:
    run(place, 12, ["a"], limit=1)
    run(place, 14, ["b"], settings=then)
    found = resolved(place, tmp_path, **now)
    assert cut(found) == (NOON - MARGIN if is_last else None)
    assert seen(found) == (["b"] if is_last else ["a", "b"])


def test_the_last_run_ends_with_the_newest_object_that_it_has_seen(place: str, tmp_path: Path) -> None:
    run(place, 10, ["a"])
    run(place, 14, ["b"], modified=NOON - timedelta(days=3))  # an inventory was three days old
    found = resolved(place, tmp_path)
    assert cut(found) == NOON - timedelta(days=3) - MARGIN
    assert seen(found) == ["a", "b"]
    run(place, 15, ["c"], modified=NOON + timedelta(days=300))  # a clock was wrong
    assert cut(resolved(place, tmp_path)) == NOON


def test_times_tell_nothing_where_no_object_store_has_listed_them(place: str, tmp_path: Path) -> None:
    run(place, 1, ["a"])
    run(place, 14, ["b"])
    found = resolved(place, tmp_path, lists=False)
    assert cut(found) is None
    assert seen(found) == ["a", "b"]


def test_a_row_that_could_not_be_read_was_not_seen(place: str, tmp_path: Path) -> None:
    run(place, 14, ["a"], unreadable=("b",))
    assert seen(resolved(place, tmp_path)) == ["a"]
    run(place, 14, [], unreadable=("b",))
    assert seen(resolved(place, tmp_path)) == []


def test_results_that_are_gone_are_named(place: str, tmp_path: Path) -> None:
    folder = run(place, 14, ["a"])
    delete(folder.results)
    with pytest.raises(AuditError, match=r"results of run 2026-03-14/audit are gone.*put them back") as failure:
        resolved(place, tmp_path)
    assert failure.value.code == 2


def test_a_time_is_a_time(place: str, tmp_path: Path) -> None:
    run(place, 14, ["a"])
    found = resolved(place, tmp_path, since="2026-03-14T13:00+01:00")
    assert found is not None
    assert (found.cut, found.seen) == (NOON, None)
    assert resolved(place, tmp_path, since=None) is None
    assert parse_since("2026-03-14") == datetime(2026, 3, 14, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "  ", "yesterday", "Last-Run", "2026-02-30", "1712121512034"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match=r"write last-run, or a time such as"):
        parse_since(text)
