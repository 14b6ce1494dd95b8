"""The sample manifests, read to exact rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from manifests.freeze import freeze_file
from manifests.readers import detect_format
from manifests.schema import image_id
from tests.manifests.conftest import Frozen

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
FILES = {
    "parquet": "manifest.parquet",
    "csv": "manifest.csv",
    "jsonl": "manifest.jsonl",
    "sagemaker": "manifest.sagemaker.jsonl",
    "lookout": "manifest.lookout.jsonl",
}


@pytest.fixture(params=list(FILES))
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Frozen]:
    source = SAMPLES / FILES[request.param]
    return request.param, Frozen(tmp_path / "frozen", freeze_file(source, tmp_path / "frozen"))


def test_six_rows_each_in_order_and_with_the_known_first_row(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    assert found.frozen.rows == len(found.rows) == 6
    assert found.column("row") == list(range(6))
    first = found.rows[0]
    assert first["uri"] == "s3://plant/line-1/cam-a/0001.png"
    assert first["problem_code"] is None
    if kind == "lookout":  # it knows nothing but the image and its labels
        assert {first[name] for name in ("version_id", "captured_at", "line", "camera", "declared_category")} == {None}
        assert first["image_id"] == image_id(first["uri"], None, None)
        return
    assert first["captured_at"] == datetime(2025, 3, 1, 22, 15, tzinfo=UTC)
    assert (first["line"], first["camera"], first["declared_category"]) == ("line-1", "cam-a", "bottle")
    assert first["image_id"] == image_id(first["uri"], "v1", None) == "303d28979301d4781242f1fd35bb9380"
    # An offset, an epoch in seconds and a plain time are the same moment.
    assert found.rows[1]["captured_at"] == datetime(2025, 3, 1, 22, 15, 2, tzinfo=UTC)


def test_all_list_the_same_images(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    expected: list[str | None] = [
        "s3://plant/line-1/cam-a/0001.png",
        "s3://plant/line-1/cam-a/0002.png",
        "s3://plant/line-2/cam-b/0003.png",
        "s3://plant/line-2/cam-b/0004.png",
        "s3://plant/line-2/cam-b/0005.png",
        "s3://plant/line-2/cam-b/0006.png",
    ]
    if kind == "parquet":
        expected[2] = "s3://plant/line-1/cam-a/0003.png"
    if kind == "csv":  # a name with a comma, and the first image again
        expected[2], expected[5] = "s3://plant/line-2/cam-b/0003, again.png", expected[0]
    if kind in ("jsonl", "sagemaker"):  # cut short
        expected[3] = None
    if kind == "sagemaker":  # embedded
        expected[5] = None
    assert found.column("uri") == expected


def test_the_problems_are_exact(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    expected = {
        "parquet": [None] * 6,
        "csv": [None, None, None, "malformed_row", None, "duplicate"],
        "jsonl": [None, None, None, "malformed_row", None, "malformed_value"],
        "sagemaker": [None, None, None, "malformed_row", None, "empty_uri"],
        "lookout": [None] * 6,
    }[kind]
    assert found.column("problem_code") == expected
    assert sum(found.frozen.problems.values()) == sum(code is not None for code in expected)
    messages = found.column("problem_message")
    if kind == "csv":
        assert messages[3].startswith("line 5: 5 fields, the header has 9: s3://plant/line-2/cam-b/0004.png")
        assert messages[5] == "same uri and version as row 0"
        assert found.rows[3]["uri"] == "s3://plant/line-2/cam-b/0004.png"
    if kind in ("jsonl", "sagemaker"):
        assert messages[3].startswith("line 4: not JSON")
    if kind == "jsonl":
        assert messages[5] == "line 6: column captured_at: 'last night' is not an ISO 8601 time"
    if kind == "sagemaker":
        assert messages[5] == (
            "line 6: the data is embedded in the row (source); only images that lie somewhere (source-ref) can be read"
        )


def test_further_columns_have_their_types(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    station = pa.struct([("id", pa.int64()), ("tools", pa.list_(pa.string()))])
    fields = {
        "parquet": [("size", pa.int64()), ("price", pa.decimal128(9, 2)), ("station", station)],
        "csv": [("order", pa.string()), ("size", pa.int64())],
        "jsonl": [("shift", pa.float64()), ("station", pa.string())],
        "sagemaker": [("shift", pa.float64()), ("labels", pa.string()), ("source", pa.string())],
        "lookout": [("labels", pa.string())],
    }[kind]
    assert found.frozen.extras == pa.schema(fields)
    if kind == "csv":
        assert found.column("order")[:3] == ["A-1001", "A-1001", 'A-1002 "rush"']
    if kind == "jsonl":
        assert found.column("shift") == [3.0, 3.0, 3.5, None, None, 1.0]
        assert found.rows[0]["station"] == '{"id": 7}'


def test_labels_are_kept_as_one_json_object(sample: tuple[str, Frozen]) -> None:
    kind, found = sample
    if kind not in ("sagemaker", "lookout"):
        assert "labels" not in found.frozen.extras.names
        return
    texts = found.column("labels")
    lines = (SAMPLES / FILES[kind]).read_text().splitlines()
    for i in {"sagemaker": (0, 1, 2), "lookout": (0, 1, 2, 3, 5)}[kind]:
        labels = {k: v for k, v in json.loads(lines[i]).items() if k.startswith(("defects", "anomaly-"))}
        assert json.loads(texts[i]) == labels != {}
        assert texts[i] == json.dumps(labels, sort_keys=True, separators=(",", ":"))
    assert [text is None for text in texts] == {
        "sagemaker": [False, False, False, True, True, True],
        "lookout": [False, False, False, False, True, False],
    }[kind]


def test_content_tells_the_format_where_the_name_does_not(tmp_path: Path) -> None:
    for kind, file in FILES.items():
        copy = tmp_path / "tonight"
        copy.write_bytes((SAMPLES / file).read_bytes())
        expected = "sagemaker" if kind == "lookout" else kind
        assert detect_format(copy) == detect_format(SAMPLES / file) == expected
