"""Columns under other names, in every format."""

from __future__ import annotations

import csv
import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.readers import ReadOptions, detect_format, open_manifest
from manifests.readers.options import KNOWN
from manifests.schema import ManifestError
from tests.manifests.conftest import TABLE_FORMATS, read_rows, write_rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uri=s3_key,captured_at=ts", {"uri": "s3_key", "captured_at": "ts"}),
        ("uri=key, line = a b ", {"uri": "key", "line": " a b "}),
        ("uri=a=b", {"uri": "a=b"}),
        ('uri=a"b', {"uri": 'a"b'}),
        ('uri=key,"captured_at=date, ""local"""', {"uri": "key", "captured_at": 'date, "local"'}),
        ('uri=key, "line=a,b"', {"uri": "key", "line": "a,b"}),
        ("camera=line,line=camera", {"camera": "line", "line": "camera"}),
        ("labels=l,size=s,last_modified=m", {"labels": "l", "size": "s", "last_modified": "m"}),
    ],
)
def test_a_mapping_is_one_record_of_csv(text: str, expected: dict[str, str]) -> None:
    assert ReadOptions.parse_map(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not a known column, '=' and its name"),
        ("uri", "'uri' is not a known column, '=' and its name"),
        ("uri=", "'uri=' is not a known column, '='"),
        ("=key", "'=key' is not a known column, '='"),
        ("uri=a,", "'' is not a known column, '='"),
        ("url=a", "'url' is not a known column, one of uri, version_id, .*, size, last_modified, labels"),
        ("URI=a", "'URI' is not a known column"),
        ("row=a", "'row' is not a known column"),
        ("uri=a,uri=b", "uri comes twice"),
        ("uri=a,line=a", "'a' is given for uri and for line"),
        ('"uri=a', "cannot be read"),
        ("uri=a\nline=b", "cannot be read"),
    ],
)
def test_a_wrong_mapping_names_the_entry(text: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says) as error:
        ReadOptions.parse_map(text)
    assert "\n" not in str(error.value)


def test_a_mapping_that_is_made_by_hand_is_judged_too() -> None:
    with pytest.raises(ManifestError, match="'url' is not a known column"):
        ReadOptions({"url": "a"})
    with pytest.raises(ManifestError, match="'a' is given for uri and for line"):
        ReadOptions({"uri": "a", "line": "a"})


NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(mapping=st.dictionaries(st.sampled_from(KNOWN), NAME, min_size=1))
def test_any_mapping_can_be_written(mapping: dict[str, str]) -> None:
    if len(set(mapping.values())) < len(mapping):
        mapping = {known: column + known for known, column in mapping.items()}
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow(f"{k}={v}" for k, v in mapping.items())
    assert ReadOptions.parse_map(text.getvalue()) == mapping


@given(st.text(st.sampled_from('uri=line,"\r\n\0 a'), max_size=20))
def test_any_text_is_a_mapping_or_refused(text: str) -> None:
    try:
        mapping = ReadOptions.parse_map(text)
    except ManifestError:
        return
    assert set(mapping) <= {"uri", "line"}
    assert mapping
    assert ReadOptions(mapping).columns == mapping


ROWS = [
    {"s3_key": "a.png", "ts": "2025-03-01", "what": "bottle", "note": "n1", "bytes": "12", "l": '{"a": 1}'},
    {"s3_key": "b.png", "ts": "noon", "what": "cable", "note": "n2", "bytes": "", "l": "none"},
]
MAP = {"uri": "s3_key", "captured_at": "ts", "declared_category": "what", "size": "bytes", "labels": "l"}


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_a_mapped_column_is_read_as_the_known_one_and_not_carried_again(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind, ROWS)
    reader = open_manifest(path, None, ReadOptions(MAP))
    assert reader.schema_extras == pa.schema([("note", pa.string()), ("size", pa.int64()), ("labels", pa.string())])
    first, second = (row for batch in reader.batches() for row in batch.to_pylist())
    assert {name: value for name, value in first.items() if value is not None} == {
        "uri": "a.png",
        "captured_at": datetime(2025, 3, 1, tzinfo=UTC),
        "declared_category": "bottle",
        "note": "n1",
        "size": 12,
        "labels": '{"a": 1}',
    }
    assert (second["uri"], second["problem_code"]) == ("b.png", "malformed_value")
    assert second["problem_message"].endswith("column captured_at: 'noon' is not an ISO 8601 time")
    assert (second["size"], second["labels"]) == (None, "none")


@pytest.mark.parametrize("kind", TABLE_FORMATS)
@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"uri": "S3_KEY"}, "no (column|key) 'S3_KEY' to be read as uri .case counts.; the file has: 's3_key', 'line'"),
        ({"line": "s3_key"}, "'s3_key' is to be read as line, but the file has a (column|key) 'line' too; rename"),
        ({"uri": "s3_key", "line": "\0"}, r"no (column|key) '\\x00'"),
        ({"camera": "line"}, "no (uri column|row has a uri)"),
    ],
)
def test_columns_that_do_not_fit_the_mapping_are_refused_by_name(
    tmp_path: Path, kind: str, columns: dict[str, str], says: str
) -> None:
    path = write_rows(tmp_path, kind, [{"s3_key": "a", "line": "1"}])
    with pytest.raises(ManifestError, match=rf"tonight\.{kind}: .*{says}"):
        open_manifest(path, kind, ReadOptions(columns))


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_known_columns_can_change_places(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind, [{"uri": "v", "key": "u", "line": "c", "camera": "l"}])
    swap = {"uri": "key", "version_id": "uri", "line": "camera", "camera": "line"}
    row = read_rows(path, columns=swap)[0]
    assert (row["uri"], row["version_id"], row["line"], row["camera"]) == ("u", "v", "l", "c")


def test_the_header_without_uri_tells_the_format_when_it_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "tonight"
    for text in (b'ts,"a, ""key"""\r\n1,2\r\n', b'\xef\xbb\xbf "ts" ,x,"a, ""key"""\n'):
        path.write_bytes(text)
        with pytest.raises(ManifestError, match="neither name nor content"):
            detect_format(path)
        assert detect_format(path, ReadOptions({"uri": 'a, "key"'})) == "csv"
    path.write_bytes(b"ts , key ,x\n1,a,2\n")
    assert read_rows(path, columns={"uri": "key"})[0]["uri"] == "a"


def test_keys_of_other_rows_count_too(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"x": 1}\nnot JSON\n{"key": "a", "x": 2}\n{"key": 5}\n')
    rows = read_rows(path, columns={"uri": "key"})
    assert [row["uri"] for row in rows] == [None, None, "a", None]
    assert [row["problem_code"] for row in rows] == ["empty_uri", "malformed_row", None, "malformed_value"]
    path.write_text('{"key": "a"}\n{"key": "b", "uri": "c"}\n')
    with pytest.raises(ManifestError, match="the file has a key 'uri' too"):
        read_rows(path, columns={"uri": "key"})
    path.write_text('{"key": "a", "key": "b"}\n{"key": "c"}\n')
    assert [row["problem_code"] for row in read_rows(path, columns={"uri": "key"})] == ["malformed_row", None]


def test_a_mapped_column_of_a_type_that_does_not_fit_is_named_as_in_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"], "where": [["x"]]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"column where is of type list<.*> and cannot be cast to string"):
        read_rows(tmp_path / "m.parquet", columns={"uri": "key", "line": "where"})


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(TABLE_FORMATS), data=st.data())
def test_a_mapped_file_reads_like_one_with_the_known_names(kind: str, data: st.DataObject) -> None:
    word = st.text("abc, ./=\"'é", max_size=6)
    known = data.draw(
        st.lists(st.sampled_from(KNOWN), unique=True, min_size=1).map(lambda k: [*{"uri": 0} | dict.fromkeys(k)])
    )
    name = st.text("abcü=,\"'.-", min_size=1, max_size=5)
    other = data.draw(st.lists(name, unique=True, min_size=len(known), max_size=len(known)))
    values = data.draw(st.lists(st.lists(word, min_size=len(known), max_size=len(known)), min_size=1, max_size=5))
    with tempfile.TemporaryDirectory() as folder:
        plain = read_rows(write_rows(Path(folder), kind, [dict(zip(known, row, strict=True)) for row in values]))
        mapped = write_rows(Path(folder), kind, [dict(zip(other, row, strict=True)) for row in values])
        assert read_rows(mapped, columns=dict(zip(known, other, strict=True))) == plain
