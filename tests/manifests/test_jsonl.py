"""JSON Lines: from text to exact rows, the types of further keys, and hostile text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.readers import open_manifest
from manifests.schema import ManifestError


def read(path: Path, text: str | bytes) -> list[dict[str, Any]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [row for batch in open_manifest(path, "jsonl").batches() for row in batch.to_pylist()]


GOOD = '{"uri": "z"}\n'
CASES: list[tuple[str, str | bytes, tuple[str | None, str | None]]] = [
    ("plain", '{"uri": "a"}', ("a", None)),
    ("byte order mark", b'\xef\xbb\xbf{"uri": "a"}', ("a", None)),
    ("cut short", '{"uri": "a"', (None, "malformed_row")),
    ("an array", '["a"]', (None, "malformed_row")),
    ("a string", '"a"', (None, "malformed_row")),
    ("NaN", '{"uri": "a", "x": NaN}', (None, "malformed_row")),
    ("a key twice", '{"uri": "a", "uri": "b"}', (None, "malformed_row")),
    ("a key without a name", '{"uri": "a", "": 1}', ("a", "malformed_row")),
    ("nested without end", '{"uri": "a", "x": ' + "[" * 100_000, (None, "malformed_row")),
    ("nested deep", '{"uri": "a", "x": ' + "[" * 500 + "]" * 500 + "}", (None, "malformed_row")),
    ("a number without end", '{"uri": "a", "x": ' + "9" * 10_000 + "}", (None, "malformed_row")),
    ("a line too long", '{"uri": "a", "x": "' + "y" * 2**21 + '"}', (None, "malformed_row")),
    ("two objects", '{"uri": "a"} {"uri": "b"}', (None, "malformed_row")),
    ("no uri", '{"x": 1}', (None, "empty_uri")),
    ("null uri", '{"uri": null}', (None, "empty_uri")),
    ("a number for a uri", '{"uri": 5}', (None, "malformed_value")),
    ("NUL", '{"uri": "a\\u0000b"}', ("a\0b", "control_character")),
    ("line break", '{"uri": "a\\nb", "captured_at": "noon"}', ("a\nb", "control_character")),
    ("half a surrogate pair", '{"uri": "a\\ud800"}', ("a" + "\ufffd" * 3, "not_utf8")),
    ("a whole surrogate pair", '{"uri": "a\\ud83d\\ude00"}', ("a😀", None)),
    ("Latin-1", b'{"uri": "M\xfcller"}', ("M\ufffdller", "not_utf8")),
    ("a list for a line", '{"uri": "a", "line": [1]}', ("a", "malformed_value")),
    ("true for a time", '{"uri": "a", "captured_at": true}', ("a", "malformed_value")),
    ("a time far away", '{"uri": "a", "captured_at": 1e300}', ("a", "malformed_value")),
    (
        "a time before year 1",
        '{"uri": "a", "captured_at": "0001-01-01T00:00+05:00"}',
        ("a", "malformed_value"),
    ),
    ("a fraction of a byte", '{"uri": "a", "size": 1.5}', ("a", "malformed_value")),
    ("a size above int64", '{"uri": "a", "size": 9223372036854775808}', ("a", "malformed_value")),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_line_to_a_row(tmp_path: Path, text: str | bytes, expected: tuple[str | None, str | None]) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    rows = read(tmp_path / "m.jsonl", data + b"\n  \n" + GOOD.encode())
    assert [(row["uri"], row["problem_code"]) for row in rows] == [expected, ("z", None)]
    message = rows[0]["problem_message"]
    assert message is None or (message.isprintable() and len(message) <= 300 and message.startswith("line 1: "))


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([1, None, 2**62], pa.int64(), [1, None, 2**62]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([2**53 + 1, 2.5], pa.string(), ["9007199254740993", "2.5"]),
        (["a", None, ""], pa.string(), ["a", None, ""]),
        ([None, None], pa.string(), [None, None]),
        ([1, "1"], pa.string(), ["1", '"1"']),
        ([True, 1], pa.string(), ["true", "1"]),
        ([2**63, 1], pa.string(), ["9223372036854775808", "1"]),
        (
            [{"b": [1, None], "ä": "ö"}, None],
            pa.string(),
            ['{"b": [1, None], "ä": "ö"}'.replace("None", "null"), None],
        ),
    ],
)
def test_the_type_comes_from_all_rows(
    tmp_path: Path, values: list[Any], kind: pa.DataType, expected: list[Any]
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"uri": "a", "x": value}) + "\n" for value in values))
    reader = open_manifest(path)
    assert reader.schema_extras == pa.schema([("x", kind)])
    found = [value for batch in reader.batches() for value in batch["x"].to_pylist()]
    assert found == expected


def test_labels_are_json_text_and_text_stays(tmp_path: Path) -> None:
    values = ["scratch", '{"b": 1, "a": 2}', "", None, {"b": [1, None], "a": "é"}, ["x"], 7, 0.5, True]
    text = "".join(json.dumps({"uri": "a", "labels": value}) + "\n" for value in values)
    found = read(tmp_path / "m.jsonl", text + '{"uri": "a"}\n{"uri": "a", "labels": {"x": -1e999}}\n')
    kept = [
        "scratch",
        '{"b": 1, "a": 2}',
        None,
        None,
        '{"a":"é","b":[1,null]}',
        '["x"]',
        "7",
        "0.5",
        "true",
        None,
        None,
    ]
    assert [row["labels"] for row in found] == kept
    assert [row["problem_code"] for row in found] == [None] * 10 + ["malformed_value"]
    assert found[-1]["problem_message"].startswith(
        "line 11: column labels: it holds a number that JSON text cannot hold"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"url": "a"}\n', "no row has a uri"),
        (b'[{"uri": "a"},\n{"uri": "b"}]\n', "no row has a uri"),
        ('{"uri": "a"}\n'.encode("utf-16"), "UTF-16"),
        ("".join(f'{{"uri": "a", "k{i}": 1}}\n' for i in range(1001)).encode(), "different keys"),
        (gzip.compress(GOOD.encode() * 9999, mtime=0)[:-12], "damaged or cut short"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path, text: bytes, says: str) -> None:
    with pytest.raises(ManifestError, match=says) as error:
        read(tmp_path / "tonight.jsonl", text)
    assert "tonight.jsonl" in str(error.value)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300))
def test_whatever_bytes_come_every_line_has_a_fate(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    rows = read(tmp_path_factory.mktemp("jsonl") / "m.jsonl", GOOD.encode() + data + b"\n" + GOOD.encode())
    lines = [line for line in data.split(b"\n") if line.strip(b" \t\r\n")]
    assert len(rows) == len(lines) + 2
