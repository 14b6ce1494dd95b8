"""Freezing: shards, duplicates, names, digests, refusals; and whatever rows go in, as many come out."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import spread
from manifests.freeze import Filters, FrozenManifest, Shard, freeze_file, read_shard, shard_plan
from manifests.readers.jsonl import JsonlReader
from manifests.schema import PROBLEM_CODES, ManifestError, frozen_schema, image_id
from tests.manifests.conftest import Freezer, freeze_content


def uris(count: int) -> pa.Table:
    return pa.table({"uri": [f"s3://plant/{i}.png" for i in range(count)], "n": list(range(count))})


@pytest.mark.parametrize(
    ("rows", "shard_rows", "expected"),
    [
        (1, None, [1]),
        (16, None, [16]),
        (40, None, [14, 13, 13]),
        (320, None, [20] * 16),
        (10_000, None, [250] * 40),
        (7, 3, [3, 2, 2]),
        (6, 3, [3, 3]),
        (5, 100, [5]),
    ],
)
def test_shards_are_whole_and_none_is_empty(
    frozen_from: Freezer, rows: int, shard_rows: int | None, expected: list[int]
) -> None:
    found = frozen_from(uris(rows), "m.parquet", shard_rows=shard_rows)
    assert [shard.rows for shard in found.frozen.shards] == expected
    assert found.column("n") == found.column("row") == list(range(rows))
    assert found.column("shard") == [i % len(expected) for i in range(rows)]
    for shard in found.frozen.shards:  # as the file has them, and not as the test sorts them
        assert read_shard(found.folder / shard.part, shard.row_group)["row"].to_pylist() == list(
            range(shard.index, rows, len(expected))
        )
    assert found.table.schema == frozen_schema(pa.schema([("n", pa.int64())]))


def test_sixty_four_row_groups_a_part(frozen_from: Freezer) -> None:
    found = frozen_from(uris(130), "m.parquet", shard_rows=1)
    parts = sorted(path.name for path in found.folder.iterdir())
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [pq.read_metadata(found.folder / part).num_row_groups for part in parts] == [64, 64, 2]
    assert found.frozen.shards[65] == Shard(65, "part-00001.parquet", 1, 1)
    assert pq.read_metadata(found.folder / parts[0]).row_group(0).column(0).compression == "ZSTD"
    with open(found.folder / parts[1], "rb") as file:
        assert read_shard(file, 1)["n"].to_pylist() == [65]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("bucket", [2**26, 4096, 1])
def test_every_shard_has_rows_of_every_prefix(
    frozen_from: Freezer, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    """A listing in the order of the keys, in 200 shards of 10 rows; in one bucket, in some, and in one for each."""
    listing = pa.table({"uri": [f"s3://plant/line-{i // 200}/{i % 200:03d}.png" for i in range(2000)]})
    expected = contents(frozen_from(listing, "m.parquet", shard_rows=10).folder)
    monkeypatch.setattr(spread, "BUCKET_BYTES", bucket)
    found = frozen_from(listing, "m.parquet", shard_rows=10)
    assert contents(found.folder) == expected
    for shard in found.frozen.shards:
        table = read_shard(found.folder / shard.part, shard.row_group)
        assert set(table["shard"].to_pylist()) == {shard.index}
        assert table["uri"].to_pylist() == [f"s3://plant/line-{i}/{shard.index:03d}.png" for i in range(10)]
    assert found.column("row") == list(range(2000))


@pytest.mark.parametrize(("rows", "shard_rows", "most"), [(997, 7, 4), (997, 7, 1000), (11, 100, 5), (500, 1, 7)])
def test_every_row_is_in_its_shard_whatever_the_buckets(
    frozen_from: Freezer, monkeypatch: pytest.MonkeyPatch, rows: int, shard_rows: int, most: int
) -> None:
    monkeypatch.setattr(spread, "BUCKET_BYTES", 1)
    monkeypatch.setattr(spread, "MOST_BUCKETS", most)
    found = frozen_from(uris(rows), "m.parquet", shard_rows=shard_rows)
    assert found.column("n") == found.column("row") == list(range(rows))
    count = -(-rows // shard_rows)
    assert found.column("shard") == [i % count for i in range(rows)]


def test_duplicates_are_exact_and_the_first_stays_good(frozen_from: Freezer) -> None:
    lines = [
        "uri,version_id,etag",
        "a,,",
        "b,1,",
        "a,,",
        "b,2,",
        "b,1,x",
        "c,,e",
        "c,,e",
        "a,,",
        "a,,,",
        "a,,",
    ]
    found = frozen_from("\n".join(lines), "m.csv", shard_rows=4)
    duplicates = {row["row"]: row["problem_message"] for row in found.rows if row["problem_code"] == "duplicate"}
    same = "same uri and version as row {}".format
    assert duplicates == {2: same(0), 4: same(1), 6: same(5), 7: same(0), 9: same(0)}
    assert found.rows[8]["problem_code"] == "malformed_row"
    assert found.frozen.problems == {"duplicate": 5, "malformed_row": 1}
    good = [row["image_id"] for row in found.rows if row["problem_code"] is None]
    assert len(good) == len(set(good)) == 4
    assert found.rows[2]["image_id"] == found.rows[0]["image_id"] == image_id("a", None, None)


def test_a_bad_row_first_does_not_make_a_good_one_a_duplicate(frozen_from: Freezer) -> None:
    found = frozen_from("uri,captured_at\na,noon\na,2025-03-01\na,noon\n", "m.csv")
    assert found.column("problem_code") == ["malformed_value", None, "malformed_value"]


def test_duplicates_across_batches_and_shards(frozen_from: Freezer) -> None:
    count = 70_000
    table = pa.table({"uri": [f"u{i % (count - 5)}" for i in range(count)]})
    found = frozen_from(table, "m.parquet")
    bad = [row["row"] for row in found.rows if row["problem_code"] is not None]
    assert bad == list(range(count - 5, count))
    assert found.rows[-1]["problem_message"] == "same uri and version as row 4"


def test_rows_without_a_uri_have_names_of_their_own_and_keep_them(frozen_from: Freezer) -> None:
    text = "uri,x\n,1\n,1\n" + "a" * 5000 + ",1\n" + "a" * 5001 + ",1\n,1\n"
    first, second = (frozen_from(text, "m.csv").column("image_id") for _ in range(2))
    assert first == second
    assert len(set(first)) == 5
    assert all(len(name) == 32 for name in first)


def test_names_are_the_same_every_night() -> None:
    assert image_id("a", "v", "e") == image_id("a", "v", None) != image_id("a", None, "e")
    assert image_id("a", None, None) == image_id("a", "", "") == "ffe9aaeaa2a2d5048174df0b80599ef0"


def test_the_same_source_and_settings_give_the_same_digest(frozen_from: Freezer) -> None:
    first = frozen_from(uris(100), "m.parquet").frozen
    assert frozen_from(uris(100), "m.parquet").frozen == first
    assert frozen_from(uris(100), "other.parquet").frozen == first
    others = [
        frozen_from(uris(101), "m.parquet"),
        frozen_from(uris(100), "m.parquet", shard_rows=50),
        frozen_from(uris(100), "m.parquet", filters=Filters(limit=99)),
    ]
    assert len({first.digest, *(other.frozen.digest for other in others)}) == 4


def test_only_the_first_rows(frozen_from: Freezer) -> None:
    assert frozen_from(uris(100), "m.parquet", filters=Filters(limit=7)).column("n") == list(range(7))
    assert frozen_from(uris(3), "m.parquet", filters=Filters(limit=7)).frozen.rows == 3
    with pytest.raises(ValueError, match="limit must be at least 1"):
        Filters(limit=0)
    with pytest.raises(ValueError, match="shard_rows must be at least 1"):
        frozen_from(uris(3), "m.parquet", shard_rows=0)


def test_it_goes_through_json(frozen_from: Freezer) -> None:
    frozen = frozen_from(uris(1000), "m.parquet", shard_rows=7).frozen
    assert FrozenManifest.from_dict(json.loads(json.dumps(frozen.to_dict()))) == frozen
    assert shard_plan(1000, 143) == frozen.shards


def test_a_record_of_an_older_version_is_what_it_was(frozen_from: Freezer) -> None:
    """Its shards were neighbours, all of them full but the last."""
    found = frozen_from(uris(10), "m.parquet", shard_rows=4).frozen.to_dict()
    for key in ("shards", "left_out", "places"):
        del found[key]
    older = FrozenManifest.from_dict(found | {"shard_rows": 4})
    assert [shard.rows for shard in older.shards] == [4, 4, 2]
    assert (older.rows, older.left_out, older.places) == (10, {}, None)


@pytest.mark.parametrize("name", ["score", "Score", "row", "image_id", "problem_code", "URI"])
def test_a_column_of_the_results_is_refused(frozen_from: Freezer, name: str) -> None:
    with pytest.raises(ManifestError, match=rf"m\.csv: column '{name}'.*rename"):
        frozen_from(f"uri,{name}\na,1\n", "m.csv", reserved=frozenset({"score", "uri", "line"}))


def test_columns_that_differ_in_case_are_refused(frozen_from: Freezer) -> None:
    with pytest.raises(ManifestError, match="'Note' and 'note' differ in case"):
        frozen_from("uri,Note,note\na,1,2\n", "m.csv")


def test_nothing_is_left_beside_the_output_and_nothing_is_overwritten(tmp_path: Path) -> None:
    pq.write_table(uris(5), tmp_path / "m.parquet")
    freeze_file(tmp_path / "m.parquet", tmp_path / "frozen")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frozen", "m.parquet"]
    with pytest.raises(FileExistsError, match="empty folder"):
        freeze_file(tmp_path / "m.parquet", tmp_path / "frozen")
    with pytest.raises(FileNotFoundError):
        freeze_file(tmp_path / "none.parquet", tmp_path / "other")


def test_a_source_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "m.jsonl"
    source.write_text('{"uri": "a"}\n')
    batches = JsonlReader.batches

    def write_then_read(self: JsonlReader) -> Any:
        source.write_text('{"uri": "a"}\n{"uri": "b"}\n')
        return batches(self)

    monkeypatch.setattr(JsonlReader, "batches", write_then_read)
    with pytest.raises(ManifestError, match=r"m\.jsonl: was written to while it was read"):
        freeze_file(source, tmp_path / "frozen")
    assert list((tmp_path / "frozen").iterdir()) == []


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
ROW = st.tuples(TEXT, TEXT, st.sampled_from(["", "2025-03-01", "noon"]))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.one_of(ROW, st.lists(TEXT, min_size=4, max_size=5)), min_size=1, max_size=40))
def test_any_csv_rows_in_are_rows_out(rows: list[Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("uri", "note", "captured_at"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        found = freeze_content(Path(folder), text.getvalue(), "m.csv", shard_rows=7)
    assert found.frozen.rows == len(found.rows) == len(rows)
    assert [row["uri"] or "" for row in found.rows] == [row[0] for row in rows]
    assert [row["note"] for row in found.rows] == [row[1] for row in rows]
    check_codes(found.rows, [row[0] for row in rows], [len(row) != 3 for row in rows])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.one_of(st.tuples(TEXT, JSON), st.none()), min_size=1, max_size=40),
    ascii_only=st.booleans(),
)
def test_any_json_rows_in_are_rows_out(rows: list[tuple[str, Any] | None], ascii_only: bool) -> None:
    objects = [{"uri": row[0], "note": row[1]} for row in [("first", None), *(row or ("", 0) for row in rows)]]
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in objects]
    lines = [line if row is not None else line[:-1] for line, row in zip(lines, [(), *rows], strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        found = freeze_content(Path(folder), "\n".join(lines), "m.jsonl", shard_rows=7)
    assert found.frozen.rows == len(found.rows) == len(lines)
    kept = ["first", *("" if row is None else row[0] for row in rows)]
    assert [row["uri"] or "" for row in found.rows] == kept
    check_codes(found.rows, kept, [False, *(row is None for row in rows)])
    if pa.types.is_string(found.frozen.extras.field("note").type):
        good = [(row[1], out["note"]) for row, out in zip(rows, found.rows[1:], strict=True) if row is not None]
        as_text = all(note is None or isinstance(note, str) for note, _ in good)
        assert [note if as_text or note is None else json.dumps(note, ensure_ascii=False) for note, _ in good] == [
            out for _, out in good
        ]


def check_codes(found: list[dict[str, Any]], uris: list[str], malformed: list[bool]) -> None:
    """Every row has the code that its uri deserves, and every good image is there once."""
    seen: set[str] = set()
    for row, uri, bad in zip(found, uris, malformed, strict=True):
        code = row["problem_code"]
        assert code is None or code in PROBLEM_CODES
        if bad:
            assert code == "malformed_row"
        elif not uri.strip():
            assert code in ("empty_uri", "control_character")
        elif any(ord(c) < 32 or ord(c) == 127 for c in uri):
            assert code == "control_character"
        elif code != "malformed_value":
            assert (code == "duplicate") == (uri in seen)
            seen.add(uri)
        assert row["problem_message"] is None or row["problem_message"].isprintable()
