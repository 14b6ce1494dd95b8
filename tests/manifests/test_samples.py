"""The sample manifests, read to exact rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from manifests.freeze import freeze_file
from manifests.readers import detect_format
from manifests.schema import image_id
from tests.manifests.conftest import Frozen

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Frozen]:
    source = SAMPLES / f"manifest.{request.param}"
    return request.param, Frozen(tmp_path / "frozen", freeze_file(source, tmp_path / "frozen"))


def test_six_rows_each_in_order_and_with_the_known_first_row(sample: tuple[str, Frozen]) -> None:
    _, found = sample
    assert found.frozen.rows == len(found.rows) == 6
    assert found.column("row") == list(range(6))
    first = found.rows[0]
    assert first["uri"] == "s3://plant/line-1/cam-a/0001.png"
    assert first["captured_at"] == datetime(2025, 3, 1, 22, 15, tzinfo=UTC)
    assert (first["line"], first["camera"], first["declared_category"]) == ("line-1", "cam-a", "bottle")
    assert first["image_id"] == image_id(first["uri"], "v1", None) == "303d28979301d4781242f1fd35bb9380"
    assert first["problem_code"] is None
    # An offset, an epoch in seconds and a plain time are the same moment.
    assert found.rows[1]["captured_at"] == datetime(2025, 3, 1, 22, 15, 2, tzinfo=UTC)


def test_the_problems_are_exact(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    expected = {
        "parquet": [None] * 6,
        "csv": [None, None, None, "malformed_row", None, "duplicate"],
        "jsonl": [None, None, None, "malformed_row", None, "malformed_value"],
    }[kind]
    assert found.column("problem_code") == expected
    assert sum(found.frozen.problems.values()) == sum(code is not None for code in expected)
    messages = found.column("problem_message")
    if kind == "csv":
        assert messages[3].startswith("line 5: 5 fields, the header has 9: s3://plant/line-2/cam-b/0004.png")
        assert messages[5] == "same uri and version as row 0"
        assert found.rows[3]["uri"] == "s3://plant/line-2/cam-b/0004.png"
    if kind == "jsonl":
        assert messages[3].startswith("line 4: not JSON")
        assert messages[5] == "line 6: column captured_at: 'last night' is not an ISO 8601 time"


def test_further_columns_have_their_types(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    station = pa.struct([("id", pa.int64()), ("tools", pa.list_(pa.string()))])
    fields = {
        "parquet": [("size", pa.int64()), ("price", pa.decimal128(9, 2)), ("station", station)],
        "csv": [("order", pa.string()), ("size", pa.int64())],
        "jsonl": [("shift", pa.float64()), ("station", pa.string())],
    }[kind]
    assert found.frozen.extras == pa.schema(fields)
    if kind == "csv":
        assert found.column("order")[:3] == ["A-1001", "A-1001", 'A-1002 "rush"']
    if kind == "jsonl":
        assert found.column("shift") == [3.0, 3.0, 3.5, None, None, 1.0]
        assert found.rows[0]["station"] == '{"id": 7}'


def test_content_tells_the_format_where_the_name_does_not(tmp_path: Path) -> None:
    for kind in ("parquet", "csv", "jsonl"):
        copy = tmp_path / "tonight"
        copy.write_bytes((SAMPLES / f"manifest.{kind}").read_bytes())
        assert detect_format(copy) == kind
