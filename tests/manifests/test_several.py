"""Several manifests read as one: the union of their columns, the order of rows, and whose problem it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.readers import open_manifest
from manifests.readers.several import SeveralReader
from manifests.schema import ManifestError, batch_schema


def several(folder: Path, **files: str | pa.Table) -> SeveralReader:
    """Files by name; the last word of a name, after a _, is its suffix."""
    readers = []
    for key, content in files.items():
        path = folder / key.replace("_", ".")
        if isinstance(content, str):
            path.write_text(content)
        else:
            pq.write_table(content, path)
        readers.append((path.name, open_manifest(path)))
    return SeveralReader(readers)


def rows(reader: SeveralReader) -> list[dict[str, Any]]:
    batches = list(reader.batches())
    assert {batch.schema for batch in batches} == {batch_schema(reader.schema_extras)}
    return [row for batch in batches for row in batch.to_pylist()]


def test_rows_come_in_turn_and_columns_that_one_lacks_are_null(tmp_path: Path) -> None:
    reader = several(
        tmp_path,
        a_csv="uri,line,note\na1,L1,n\na2\n",
        b_jsonl='{"uri": "b1", "shift": 3, "labels": {"x": 1}}\n{"uri": "b2", "captured_at": "noon"}\n',
        c_parquet=pa.table({"uri": ["c1"], "note": ["n"], "shift": pa.array([None], pa.int64()), "extra": [[1]]}),
    )
    assert reader.schema_extras == pa.schema(
        [("note", pa.string()), ("shift", pa.int64()), ("labels", pa.string()), ("extra", pa.list_(pa.int64()))]
    )
    found = rows(reader)
    shown = [(r["uri"], r["line"], r["note"], r["shift"], r["labels"], r["extra"]) for r in found]
    assert shown == [
        ("a1", "L1", "n", None, None, None),
        ("a2", None, None, None, None, None),
        ("b1", None, None, 3, '{"x":1}', None),
        ("b2", None, None, None, None, None),
        ("c1", None, "n", None, None, [1]),
    ]
    assert [row["problem_message"] for row in found] == [
        None,
        "a.csv: line 3: 1 fields, the header has 3: a2",
        None,
        "b.jsonl: line 2: column captured_at: 'noon' is not an ISO 8601 time",
        None,
    ]


def test_one_alone_is_read_as_it_is(tmp_path: Path) -> None:
    reader = several(tmp_path, a_csv="uri,captured_at\na,noon\n")
    alone = open_manifest(tmp_path / "a.csv")
    assert reader.schema_extras == alone.schema_extras
    assert list(reader.batches()) == list(alone.batches())
    with pytest.raises(ValueError, match="no manifest to read"):
        SeveralReader([])


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["int64", "int64"], pa.int64()),
        (["null", "int64"], pa.int64()),
        (["int64", "null"], pa.int64()),
        (["null", "null"], pa.null()),
        (["int64", "float64"], pa.float64()),
        (["float64", "int64"], pa.float64()),
        (["null", "int64", "null", "float64", "int64"], pa.float64()),
    ],
)
def test_types_that_go_together(tmp_path: Path, types: list[str], expected: pa.DataType) -> None:
    files = {
        f"m{i}_parquet": pa.table({"uri": [f"u{i}"], "x": pa.array([None if name == "null" else i], name)})
        for i, name in enumerate(types)
    }
    reader = several(tmp_path, **files)
    assert reader.schema_extras == pa.schema([("x", expected)])
    assert [row["x"] for row in rows(reader)] == [None if name == "null" else i for i, name in enumerate(types)]


@pytest.mark.parametrize(
    ("first", "second"),
    [("int64", "string"), ("int32", "int64"), ("float64", "float32"), ("string", "large_string"), ("int64", "bool")],
)
def test_types_that_do_not_are_refused_with_both_files(tmp_path: Path, first: str, second: str) -> None:
    kinds = {name: pa.type_for_alias(name) for name in (first, second)}
    files = {
        f"m{i}_parquet": pa.table({"uri": ["u"], "x": pa.nulls(1, kinds[name])})
        for i, name in enumerate((first, second))
    }
    with pytest.raises(ManifestError) as error:
        several(tmp_path, m_csv="uri\na\n", **files)
    assert str(error.value) == (
        f"column 'x' is of type {kinds[first]} in m0.parquet and of type {kinds[second]} in m1.parquet; "
        "cast or rename it in one of them, or audit them on their own"
    )


def test_the_file_that_made_it_a_fraction_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"of type double in b\.jsonl and of type string in c\.csv"):
        several(tmp_path, a_jsonl='{"uri": "a", "x": 1}\n', b_jsonl='{"uri": "b", "x": 1.5}\n', c_csv="uri,x\nc,2\n")


def test_a_whole_number_that_would_change_is_refused(tmp_path: Path) -> None:
    fraction = '{"uri": "b", "x": 0.5}\n'
    assert rows(several(tmp_path, a_jsonl=f'{{"uri": "a", "x": {2**53}}}\n', b_jsonl=fraction))[0]["x"] == 2.0**53
    reader = several(tmp_path, a_jsonl=f'{{"uri": "a", "x": {2**53 + 1}}}\n', b_jsonl=fraction)
    with pytest.raises(ManifestError, match=r"a\.jsonl: column 'x' holds whole numbers that double.*as text"):
        rows(reader)


def test_lists_of_different_writers_go_together(tmp_path: Path) -> None:
    lists = [pa.array([[1]], pa.list_(pa.field(name, pa.int64()))) for name in ("item", "element")]
    tables = [pa.table({"uri": ["u"], "x": values}) for values in lists]
    found = rows(several(tmp_path, a_parquet=tables[0], b_parquet=tables[1]))
    assert [row["x"] for row in found] == [[1], [1]]


def test_a_failure_while_reading_names_its_file(tmp_path: Path) -> None:
    reader = several(tmp_path, a_csv="uri\na\n", b_jsonl='{"uri": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"uri": "b", "new": 1}\n')
    with pytest.raises(ManifestError, match=r"^[^:]*b\.jsonl: key 'new' came while the file was read"):
        rows(reader)

    class Broken:
        schema_extras = pa.schema([])

        def batches(self) -> Any:
            yield from ()
            raise ManifestError("/tmp/x: the gzip file is damaged")

    with pytest.raises(ManifestError, match=r"^s3://lists/b\.csv: /tmp/x: the gzip file is damaged$"):
        list(SeveralReader([("s3://lists/b.csv", Broken())]).batches())


def test_a_message_stays_short_and_without_credentials(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,x\n" + "a" * 5000 + ",1\n" + "," + "\n")
    one = open_manifest(tmp_path / "m.csv")
    name = "s3://key:MARKEDsecret@lists/" + "long/" * 60 + "\n"
    messages = [row["problem_message"] for row in rows(SeveralReader([(name, one), ("b.csv", one)]))]
    assert all(len(message) <= 300 and message.isprintable() for message in messages)
    assert "MARKED" not in str(messages)
    assert messages[2:] == ["b.csv: line 2: uri of 5000 characters, at most 4096 are allowed", "b.csv: line 3: no uri"]
