"""Building a manifest: what a path says, and the file that is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.build import BuildSummary, PathPattern, build, is_image_name
from manifests.freeze import freeze_file
from manifests.schema import ManifestError

DAY = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{line}/{camera}/*", "l1/c1/a.png", {"line": "l1", "camera": "c1"}),
        ("{line}/{camera}/*", "l1/c1/d/a.png", None),
        ("{line}/{camera}/*", "x/l1/c1/a.png", None),
        ("{line}/**", "l1/c1/d/a.png", {"line": "l1"}),
        ("**/{line}/*.png", "a.png", None),
        ("**/{line}/*.png", "l1/a.png", {"line": "l1"}),
        ("**/{line}/*.png", "x/y/l1/a.png", {"line": "l1"}),
        ("{captured_at:%Y-%m-%d}/*", "2025-03-01/a.png", {"captured_at": DAY}),
        ("{captured_at:%Y-%m-%d}/*", "2025-02-31/a.png", None),
        ("{captured_at:%Y-%m-%d}/*", "2025-3-1/a.png", None),
        ("{captured_at:%Y/%m/%d}/*", "2025/03/01/a.png", {"captured_at": DAY}),
        (
            "{captured_at:%Y-%m-%d}/{camera}_{captured_at:%H%M%S}.png",
            "2025-03-01/c_1_221500.png",
            {"captured_at": DAY + timedelta(hours=22, minutes=15), "camera": "c_1"},
        ),
        ("{captured_at:%Y%m%dT%H%M%z}.png", "20250301T0100+0100.png", {"captured_at": DAY}),
        ("{captured_at:%Y-%j}/*", "2025-060/a.png", {"captured_at": DAY}),
        ("{captured_at:%Y-%j}/*", "2025-366/a.png", None),
        ("{captured_at:%Y-%m-%d %I%p}.png", "2025-03-01 10PM.png", {"captured_at": DAY + timedelta(hours=22)}),
        ("{declared_category}+(1).png", "cable+(1).png", {"declared_category": "cable"}),
        ("*", "a\nb.png", {}),
    ],
)
def test_path_to_fields(pattern: str, path: str, expected: dict[str, Any] | None) -> None:
    assert PathPattern(pattern).match(path) == expected


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{shift}/*", "unknown field 'shift'"),
        ("{*}.png", "without braces"),
        ("{line/*", "without its partner"),
        ("{line}/{line}/*", "field line comes twice"),
        ("{line:%Y}/*", "field line takes no format"),
        ("{captured_at}/*", "captured_at needs a format"),
        ("{captured_at:%H}/*", "captured_at needs year, month and day"),
        ("{captured_at:%Y-%m-%d %I}/*", "%I, the hour of twelve, without %p"),
        ("{captured_at:%Y-%Q}/*", "captured_at has the directive %Q"),
        ("{captured_at:%Y-%m-%d}/{captured_at:%d}", "captured_at has %d twice"),
    ],
)
def test_a_wrong_pattern_names_the_field(pattern: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        PathPattern(pattern)


def entry(path: str, size: int | None = 10) -> dict[str, Any]:
    return {
        "uri": f"s3://plant/{path}",
        "relative_path": path,
        "size": size,
        "etag": "e",
        "last_modified": DAY,
    }


def test_the_file_has_what_the_pattern_names_and_can_be_frozen(tmp_path: Path) -> None:
    pattern = PathPattern("{line}/{captured_at:%Y-%m-%d}/*.png")
    entries = (entry(path) for path in ["l1/2025-03-01/a.png", "b.png"])
    output = tmp_path / "m.parquet"
    assert build(entries, output, pattern) == BuildSummary(rows=2, unmatched=1, bytes=20)
    table = pq.read_table(output)
    assert table.column_names == ["uri", "size", "etag", "last_modified", "captured_at", "line"]
    assert table.to_pylist()[0] == {
        "uri": "s3://plant/l1/2025-03-01/a.png",
        "size": 10,
        "etag": "e",
        "last_modified": DAY,
        "captured_at": DAY,
        "line": "l1",
    }
    assert table.to_pylist()[1]["line"] is None
    frozen = freeze_file(output, tmp_path / "frozen")
    assert (frozen.rows, frozen.problems) == (2, {})
    time = pa.timestamp("us", "UTC")
    assert frozen.extras == pa.schema([("size", pa.int64()), ("last_modified", time)])


def test_without_a_pattern_and_over_many_batches(tmp_path: Path) -> None:
    count = 65_536 + 3
    assert build((entry(f"{i}.png", 1) for i in range(count)), tmp_path / "m.parquet") == BuildSummary(count, 0, count)
    assert pq.read_metadata(tmp_path / "m.parquet").num_rows == count


def test_a_name_that_is_not_utf8_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"udcff.*rename"):
        build([entry("a.png"), entry("\udcff.png")], tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_names_of_images() -> None:
    assert [n for n in ("a.PNG", "b.Jpeg", "c.tif", "d.webp", "e.txt", "png", "f.png.gz") if is_image_name(n)] == [
        "a.PNG",
        "b.Jpeg",
        "c.tif",
        "d.webp",
    ]
