"""Augmented manifests of SageMaker and Lookout for Vision: from lines to exact rows, labels, and hostile text."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.readers import ReadOptions, detect_format, open_manifest
from manifests.schema import ManifestError

GOOD = '{"source-ref": "z", "kind": 1, "kind-metadata": {}}\n'
EMBEDDED = "line 1: the data is embedded in the row (source); only images that lie somewhere (source-ref) can be read"


def read(path: Path, text: str | bytes, **options: Any) -> list[dict[str, Any]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    reader = open_manifest(path, "sagemaker", ReadOptions(**options))
    return [row for batch in reader.batches() for row in batch.to_pylist()]


LABELS = '{"kind":0,"kind-metadata":{"a":[1.5,null],"b":"é"}}'
CASES: list[tuple[str, str | bytes, tuple[str | None, str | None, str | None]]] = [
    ("plain", '{"source-ref": "a"}', ("a", None, None)),
    ("byte order mark and CR", b'\xef\xbb\xbf{"source-ref": "a"}\r', ("a", None, None)),
    (
        "keys in any order",
        '{"kind-metadata": {"b": "\\u00e9", "a": [1.5, null]}, "source-ref": "a", "kind": 0}',
        ("a", LABELS, None),
    ),
    ("a label without metadata in its row", '{"source-ref": "a", "kind": 2}', ("a", '{"kind":2}', None)),
    ("metadata alone", '{"source-ref": "a", "x-metadata": 1}', ("a", '{"x-metadata":1}', None)),
    ("a null label", '{"source-ref": "a", "kind": null}', ("a", '{"kind":null}', None)),
    ("Lookout without metadata", '{"source-ref": "a", "anomaly-label": 1}', ("a", '{"anomaly-label":1}', None)),
    ("a mask", '{"source-ref": "a", "anomaly-mask-ref": "m"}', ("a", '{"anomaly-mask-ref":"m"}', None)),
    ("a key labels", '{"source-ref": "a", "labels": ["b"]}', ("a", '{"labels":["b"]}', None)),
    ("embedded", '{"source": "b", "kind": 1}', (None, '{"kind":1}', "empty_uri")),
    ("embedded, and a null", '{"source": "b", "source-ref": null}', (None, None, "empty_uri")),
    ("embedded Latin-1", b'{"source": "\xfc"}', (None, None, "not_utf8")),
    ("both", '{"source": "b", "source-ref": "a"}', ("a", None, None)),
    ("neither", '{"kind": 1}', (None, '{"kind":1}', "empty_uri")),
    ("a number for an address", '{"source-ref": 5, "kind": 1}', (None, '{"kind":1}', "malformed_value")),
    ("cut short", '{"source-ref": "a"', (None, None, "malformed_row")),
    ("a key twice", '{"source-ref": "a", "source-ref": "b"}', (None, None, "malformed_row")),
    ("a key of a label twice", '{"source-ref": "a", "kind": {"b": 1, "b": 2}}', (None, None, "malformed_row")),
    ("a huge line", '{"source-ref": "a", "kind": "' + "y" * 2**21 + '"}', (None, None, "malformed_row")),
    (
        "a label nested deep",
        '{"source-ref": "a", "kind": ' + "[" * 500 + "]" * 500 + "}",
        (None, None, "malformed_row"),
    ),
    ("an infinite label", '{"source-ref": "a", "kind": [1e999]}', ("a", None, "malformed_value")),
    ("NUL in the address", '{"source-ref": "a\\u0000b"}', ("a\0b", None, "control_character")),
    ("NUL in the file", b'{"source-ref": "a\0b"}', (None, None, "malformed_row")),
    ("NUL in a label", '{"source-ref": "a", "kind": "\\u0000"}', ("a", '{"kind":"\\u0000"}', None)),
    (
        "half a surrogate pair in a label",
        '{"source-ref": "a", "kind": "\\ud800"}',
        ("a", '{"kind":"\ufffd\ufffd\ufffd"}', "not_utf8"),
    ),
    ("Latin-1", b'{"source-ref": "M\xfcller"}', ("M\ufffdller", None, "not_utf8")),
    ("credentials", '{"source-ref": "s3://key:secret@b/a"}', ("s3://***@b/a", None, "credentials_in_uri")),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_line_to_a_row(
    tmp_path: Path, text: str | bytes, expected: tuple[str | None, str | None, str | None]
) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    rows = read(tmp_path / "m.manifest", data + b"\r\n  \n" + GOOD.encode())
    found = [(row["uri"], row["labels"], row["problem_code"]) for row in rows]
    assert found == [expected, ("z", '{"kind":1,"kind-metadata":{}}', None)]
    message = rows[0]["problem_message"]
    assert message is None or (message.isprintable() and len(message) <= 300 and message.startswith("line 1: "))
    if expected[2] == "empty_uri":
        assert message == (EMBEDDED if b'"source"' in data else "line 1: no uri")


def test_other_keys_are_columns_as_in_json_lines_and_the_date_of_labelling_is_no_capture_time(tmp_path: Path) -> None:
    label = {"class-name": "normal", "creation-date": "2025-03-03T09:12:41"}
    rows = [
        {"source-ref": "a", "lot": "A", "shift": 1, "anomaly-label": 0, "anomaly-label-metadata": label},
        {"source-ref": "b", "shift": 2.5, "captured_at": "2025-03-01", "line": 7, "size": 12, "metadata": [1]},
    ]
    path = tmp_path / "m.manifest"
    path.write_text("\n".join(map(json.dumps, rows)))
    reader = open_manifest(path)
    expected = [("lot", pa.string()), ("shift", pa.float64()), ("labels", pa.string()), ("size", pa.int64())]
    assert reader.schema_extras == pa.schema([*expected, ("metadata", pa.string())])
    first, second = (row for batch in reader.batches() for row in batch.to_pylist())
    text = '{"anomaly-label":0,"anomaly-label-metadata":{"class-name":"normal","creation-date":"2025-03-03T09:12:41"}}'
    assert (first["captured_at"], first["labels"], first["lot"], first["metadata"]) == (None, text, "A", None)
    assert second["captured_at"] == datetime(2025, 3, 1, tzinfo=UTC)
    assert (second["labels"], second["line"], second["size"], second["metadata"]) == (None, "7", 12, "[1]")
    assert (first["shift"], second["shift"]) == (1.0, 2.5)


def test_without_any_label_there_is_no_column_labels(tmp_path: Path) -> None:
    (tmp_path / "m.manifest").write_text('{"source-ref": "a"}\n{"source-ref": "b"}\n')
    assert open_manifest(tmp_path / "m.manifest").schema_extras == pa.schema([])


def test_keys_can_be_mapped_and_are_then_no_labels(tmp_path: Path) -> None:
    text = '{"source-ref": "x/a.png", "product": "cable", "product-metadata": 1, "taken": 1740867302, "kind": 2}\n'
    columns = {"uri": "source-ref", "declared_category": "product", "captured_at": "taken"}
    row = read(tmp_path / "m.manifest", text, columns=columns, base="s3://b")[0]
    assert (row["uri"], row["declared_category"]) == ("s3://b/x/a.png", "cable")
    assert row["captured_at"] == datetime(2025, 3, 1, 22, 15, 2, tzinfo=UTC)
    assert (row["labels"], row["kind"]) == ('{"product-metadata":1}', 2)
    assert {"product", "taken", "source-ref"}.isdisjoint(row)


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        (GOOD, {"uri": "kind"}, "source-ref is the uri.*leave uri and labels out.*format jsonl"),
        (GOOD, {"labels": "kind"}, "source-ref is the uri.*leave uri and labels out.*format jsonl"),
        (GOOD, {"line": "Kind"}, "no key 'Kind' to be read as line .case counts.; the file has: 'source-ref', 'kind'"),
        (GOOD + '{"uri": "a"}\n', {}, "a key 'uri' too; rename that one, or .*format jsonl"),
        ('{"source": "a"}\n', {}, "no row has a source-ref.*embedded in the rows .source. cannot be read"),
        ("not JSON\n", {}, "no row has a source-ref"),
        (GOOD.encode("utf-16"), {}, "UTF-16"),
        (gzip.compress(GOOD.encode() * 9999, mtime=0)[:-12], {}, "damaged or cut short"),
        ("".join(f'{{"source-ref": "a", "k{i}": 1}}\n' for i in range(1001)), {}, "different keys"),
    ],
)
def test_what_is_no_such_manifest_is_refused_by_name(
    tmp_path: Path, text: str | bytes, columns: dict[str, str], says: str
) -> None:
    with pytest.raises(ManifestError, match=says) as error:
        read(tmp_path / "tonight.manifest", text, columns=columns)
    assert "tonight.manifest" in str(error.value)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ('{"source-ref": "a"}\n', {}, "sagemaker"),
        ('{"source": "a"}\n', {}, "sagemaker"),
        ('\n{}\n{"source-ref":\n[1]\n{"source-ref": "a"}\n', {}, "sagemaker"),
        ('{"source-ref": "a"}\n', {"uri": "source-ref", "line": "l"}, "sagemaker"),
        ('{"source-ref": "a", "uri": "b"}\n', {}, "jsonl"),
        ('{"source": "camera", "key": "b"}\n', {"uri": "key"}, "jsonl"),
        ('{"Source-Ref": "a"}\n', {}, "jsonl"),
        ('{"uri": "a"}\n{"source-ref": "b"}\n', {}, "jsonl"),
        ('{"source-ref":\n', {}, "jsonl"),
    ],
)
@pytest.mark.parametrize("name", ["output.manifest", "m.jsonl", "m.ndjson", "m.jsonl.gz"])
def test_the_first_object_tells_the_format(
    tmp_path: Path, text: str, columns: dict[str, str], expected: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith("gz") else b"\xef\xbb\xbf" + text.encode())
    assert detect_format(path, ReadOptions(columns)) == expected


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "a-metadata", "b-metadata", "c"]), JSON), min_size=1))
def test_no_label_is_lost(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("sagemaker") / "m.manifest"
    found = read(path, "\n".join(json.dumps({"source-ref": "u"} | row) for row in rows))
    names = ["a-metadata", "b-metadata", "a"] if any("a-metadata" in row for row in rows) else ["b-metadata"]
    assert [row["problem_code"] for row in found] == [None] * len(rows)
    for row, out in zip(rows, found, strict=True):
        text = out.get("labels")
        assert (json.loads(text) if text is not None else {}) == {k: v for k, v in row.items() if k in names}
        assert text is None or text == json.dumps(
            json.loads(text), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_whatever_bytes_come_every_line_has_a_fate(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    rows = read(tmp_path_factory.mktemp("sagemaker") / "m", GOOD.encode() + data + b"\n" + GOOD.encode())
    lines = [line for line in data.split(b"\n") if line.strip(b" \t\r\n")]
    assert len(rows) == len(lines) + 2
