"""Parquet: casts of known columns, further columns unchanged, and bytes that are not what the type says."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.readers import open_manifest
from manifests.schema import KNOWN_COLUMNS, ManifestError
from tests.manifests.conftest import Freezer

NOON = datetime(2025, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
SECONDS = int(NOON.timestamp())


def not_utf8(values: list[bytes | None]) -> pa.Array:
    """A string column whose bytes nobody has checked, as a careless writer leaves it."""
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)


@pytest.mark.parametrize(
    "uris",
    [
        pa.array(["a", "b"]),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([b"a", b"b"], pa.binary()),
        pa.array([b"a", b"b"], pa.large_binary()),
        pa.array([b"a", b"b"], pa.binary(1)),
    ],
    ids=lambda uris: str(uris.type).partition("<")[0],
)
def test_the_uri_may_be_text_or_bytes(frozen_from: Freezer, uris: pa.Array) -> None:
    found = frozen_from(pa.table({"uri": uris}), "m.parquet")
    assert found.column("uri") == ["a", "b"]
    assert found.column("problem_code") == [None, None]
    assert found.table.schema.field("uri").type == pa.string()


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([NOON], pa.timestamp("us", "UTC")), NOON),
        (pa.array([NOON], pa.timestamp("ms", "Europe/Berlin")), NOON),
        (pa.array([SECONDS * 10**9 + 250_000_999], pa.timestamp("ns")), NOON),
        (pa.array([-1], pa.timestamp("ns")), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (pa.array([date(2025, 3, 1)], pa.date32()), datetime(2025, 3, 1, tzinfo=UTC)),
        (pa.array([date(2025, 3, 1)], pa.date64()), datetime(2025, 3, 1, tzinfo=UTC)),
        (pa.array([SECONDS * 1000 + 250], pa.int64()), NOON),
        (pa.array([SECONDS], pa.int32()), NOON.replace(microsecond=0)),
        (pa.array([SECONDS + 0.25], pa.float64()), NOON),
        (pa.array([Decimal(f"{SECONDS}.25")], pa.decimal128(20, 2)), NOON),
        (pa.array(["2025-03-01T13:00:00.250+01:00"]), NOON),
        (pa.array(["2025-03-01T12:00:00.250"]).dictionary_encode(), NOON),
        (pa.nulls(1), None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_times_of_every_kind(frozen_from: Freezer, times: pa.Array, expected: datetime | None) -> None:
    found = frozen_from(pa.table({"uri": ["a"], "captured_at": times}), "m.parquet")
    assert found.rows[0]["problem_message"] is None
    assert found.rows[0]["captured_at"] == expected


def test_values_that_do_not_fit_cost_their_row(frozen_from: Freezer) -> None:
    table = pa.table(
        {
            "uri": ["a", "b", None, "d\n", "e" * 5000, "f"],
            "captured_at": pa.array([2**62, 0, 0, 2**62, 0, None], pa.timestamp("us")),
            "size": pa.array([1, 2**63, 3, 4, 5, 6], pa.uint64()),
            "line": pa.array([7, 7, 7, 7, 7, None], pa.int8()),
        }
    )
    found = frozen_from(table, "m.parquet")
    codes = ["malformed_value", "malformed_value", "empty_uri", "control_character", "uri_too_long", None]
    assert found.column("problem_code") == codes
    messages = found.column("problem_message")
    assert messages[0].startswith("row 0: column captured_at: ")
    assert messages[1].startswith("row 1: column size: ")
    assert messages[4] == "row 4: uri of 5000 characters, at most 4096 are allowed"
    assert found.column("size") == [1, None, 3, 4, 5, 6]
    assert found.column("line") == ["7"] * 5 + [None]
    assert found.frozen.problems == {
        "control_character": 1,
        "empty_uri": 1,
        "malformed_value": 2,
        "uri_too_long": 1,
    }


def test_text_that_is_not_utf8_costs_its_row(frozen_from: Freezer) -> None:
    text = not_utf8([b"fine", b"M\xfcller", None, b"fine"])
    nested = pa.StructArray.from_arrays([not_utf8([b"x", b"x", b"\xff", b"x"])], names=["name"])
    table = pa.table(
        {"uri": ["a", "b", "c", "d"], "note": text, "who": nested, "etag": not_utf8([b"\xff", *[None] * 3])}
    )
    found = frozen_from(table, "m.parquet")
    assert found.column("problem_code") == ["not_utf8", "not_utf8", "not_utf8", None]
    assert found.column("note") == ["fine", "M\ufffdller", None, "fine"]
    assert found.column("who") == [{"name": "x"}, {"name": "x"}, None, {"name": "x"}]
    assert found.column("problem_message")[2] == "row 2: not UTF-8 in column who"


def test_uris_that_are_not_utf8(frozen_from: Freezer) -> None:
    for uris in (not_utf8([b"\xff", b"\xff", b"c"]), pa.array([b"\xff", b"\xff", b"c"], pa.binary())):
        found = frozen_from(pa.table({"uri": uris}), "m.parquet")
        assert found.column("problem_code") == ["not_utf8", "not_utf8", None]
        assert found.column("uri") == ["\ufffd", "\ufffd", "c"]
        assert len(set(found.column("image_id"))) == 3


def test_further_columns_are_unchanged(frozen_from: Freezer) -> None:
    rows = 200
    numbers = np.arange(rows)
    extras: dict[str, pa.Array] = {
        "price": pa.array([Decimal(i) / 8 for i in range(rows)], pa.decimal128(12, 3)),
        "station": pa.array([{"id": i, "tools": [{"n": i}] * (i % 3)} if i % 7 else None for i in range(rows)]),
        "local": pa.array([NOON] * rows, pa.timestamp("ms", "Europe/Berlin")),
        "nanos": pa.array(numbers, pa.timestamp("ns")),
        "tiny": pa.array(numbers % 100, pa.int8()),
        "large": pa.array([str(i) for i in range(rows)], pa.large_string()),
        "blob": pa.array([bytes([i]) for i in range(rows)], pa.binary()),
        "half": pa.array(numbers.astype(np.float16)),
        "vector": pa.array([[float(i)] * 4 for i in range(rows)], pa.list_(pa.float32(), 4)),
        "nothing": pa.nulls(rows),
        "day": pa.array([date(2025, 3, 1)] * rows),
    }
    shift = pa.array(["early", "late", None, "night"] * (rows // 4)).dictionary_encode()
    table = pa.table({"uri": [f"u{i}" for i in range(rows)], **extras, "shift": shift})
    found = frozen_from(table, "m.parquet", shard_rows=30)
    for name, expected in extras.items():
        assert found.table.schema.field(name).type == expected.type
        assert found.table[name].combine_chunks().equals(pa.chunked_array([expected]).combine_chunks()), name
    assert found.column("shift") == ["early", "late", None, "night"] * (rows // 4)
    assert found.frozen.extras == pa.schema([*((n, a.type) for n, a in extras.items()), ("shift", pa.string())])
    assert found.table.schema.names[:10] == ["row", "shard", "image_id", *KNOWN_COLUMNS.names]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array(["x", None, '{"a": 1}']), ["x", None, '{"a": 1}']),
        (pa.array(["x", None]).dictionary_encode(), ["x", None]),
        (pa.array([b"x", None], pa.large_binary()), ["x", None]),
        (pa.array([["scratch", "é"], [], None]), ['["scratch","é"]', "[]", None]),
        (pa.array([[0.5, 1.0]], pa.list_(pa.float32(), 2)), ["[0.5,1.0]"]),
        (pa.array([{"b": [{"c": 1}], "a": None}]), ['{"a":null,"b":[{"c":1}]}']),
        (pa.array([True, None]), ["true", None]),
        (pa.array([7, None], pa.uint64()), ["7", None]),
        (pa.array([1.5]), ["1.5"]),
        (pa.nulls(1), [None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_labels_become_json_text(tmp_path: Path, labels: pa.Array, expected: list[str | None]) -> None:
    pq.write_table(pa.table({"uri": ["u"] * len(labels), "labels": labels}), tmp_path / "m.parquet")
    reader = open_manifest(tmp_path / "m.parquet")
    assert reader.schema_extras == pa.schema([("labels", pa.string())])
    found = [row for batch in reader.batches() for row in batch.to_pylist()]
    assert [(row["labels"], row["problem_code"]) for row in found] == [(text, None) for text in expected]


def test_a_label_that_json_cannot_hold_costs_its_row(frozen_from: Freezer) -> None:
    nested = pa.StructArray.from_arrays([not_utf8([b"x", b"\xff", b"x"])], names=["name"])
    found = frozen_from(pa.table({"uri": ["a", "b", "c"], "labels": nested}), "m.parquet")
    assert found.column("labels") == ['{"name":"x"}', None, '{"name":"x"}']
    assert found.column("problem_code") == [None, "not_utf8", None]
    found = frozen_from(pa.table({"uri": ["a", "b"], "labels": [[1.0], [float("nan")]]}), "m.parquet")
    assert found.column("labels") == ["[1.0]", None]
    assert found.rows[1]["problem_message"].startswith("row 1: column labels: it holds a number that JSON text cannot")


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([NOON], pa.timestamp("us", "UTC")),
        pa.array([date(2025, 3, 1)]),
        pa.array([[NOON]], pa.list_(pa.timestamp("us"))),
        pa.array([[b"x"]]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([Decimal("1.5")]),
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_that_are_no_json_are_refused(tmp_path: Path, labels: pa.Array) -> None:
    pq.write_table(pa.table({"uri": ["a"], "labels": labels}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"m\.parquet: column labels is of type .* and cannot be cast to text"):
        open_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"url": ["a"]}, "no uri column"),
        ({"uri": [1]}, "column uri is of type int64"),
        ({"uri": ["a"], "line": [["x"]]}, "column line is of type list"),
        ({"uri": ["a"], "captured_at": [True]}, "column captured_at is of type bool"),
    ],
)
def test_columns_that_cannot_be_are_refused_by_name(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "tonight.parquet")
    with pytest.raises(ManifestError, match=says) as error:
        open_manifest(tmp_path / "tonight.parquet")
    assert "tonight.parquet" in str(error.value)


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tonight.parquet"
    pq.write_table(pa.table({"uri": [f"u{i}" for i in range(5000)]}), path, compression="zstd", use_dictionary=False)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[100:2000] = bytes(1900)
    for data in (whole[:-20], whole[: len(whole) // 2], b"", bytes(damaged)):
        path.write_bytes(data)
        with pytest.raises(ManifestError, match=r"tonight\.parquet: not a whole Parquet file"):
            list(open_manifest(path).batches())


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="comes twice"):
        open_manifest(tmp_path / "m.parquet")


def test_wide_rows_come_in_small_batches(tmp_path: Path) -> None:
    blobs = pa.array([bytes(2**18)] * 600, pa.binary())
    pq.write_table(
        pa.table({"uri": [f"u{i}" for i in range(600)], "blob": blobs}),
        tmp_path / "m.parquet",
        use_dictionary=False,
    )
    assert max(len(batch) for batch in open_manifest(tmp_path / "m.parquet").batches()) <= 256
