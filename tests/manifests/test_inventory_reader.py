"""Reading the data files of an S3 Inventory: exact rows, the same ones from all three formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.build import PathPattern
from manifests.inventory import parse, verify_checksum, verify_file
from manifests.readers import inventory_files
from manifests.readers.inventory import InventoryReader
from manifests.readers.inventory_files import decode_key
from manifests.schema import TIME, ManifestError, batch_schema, image_id
from tests.manifests.inventories import (
    ALL,
    FORMATS,
    OBJECTS,
    TAKEN,
    UNVERSIONED,
    csv_text,
    data_file,
    delivery,
    entry,
    manifest_json,
    samples,
    write,
)

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples" / "inventory"
LEFT_OUT = {"delete_marker": 1, "old_version": 2, "folder": 1, "not_an_image": 1}
EXTRAS = ["size", "last_modified", "storage_class", "intelligent_tiering_access_tier"]


def reader(
    folder: Path, form: str, parts: Sequence[bytes], columns: Sequence[str] = ALL, **other: Any
) -> InventoryReader:
    """A reader of these data files, which are written into the folder."""
    files = {f"all/data/part-{i}.x": part for i, part in enumerate(parts)}
    paths = []
    for i, part in enumerate(parts):
        paths.append(folder / f"{i}")
        paths[-1].write_bytes(part)
    return InventoryReader(parse(manifest_json(form, files, columns)), paths, **other)


def rows(found: InventoryReader) -> list[dict[str, Any]]:
    batches = list(found.batches())
    for batch in batches:
        assert batch.schema == batch_schema(found.schema_extras)
        batch.validate(full=True)
    return [row for batch in batches for row in batch.to_pylist()]


def row(key: str, version: str | None = "v1", **other: Any) -> dict[str, Any]:
    usual = {
        "uri": f"s3://plant/{key}",
        "version_id": version,
        "etag": hashlib.md5(key.encode()).hexdigest(),
        "captured_at": None,
        "line": None,
        "camera": None,
        "declared_category": None,
        "problem_code": None,
        "problem_message": None,
        "size": 81234,
        "last_modified": TAKEN,
        "storage_class": "STANDARD",
        "intelligent_tiering_access_tier": None,
    }
    return usual | other


IMAGES = [
    row("line-1/cam-a/0001.png"),
    row("line-1/cam-a/0002.png", size=80111),
    row("line-2/cam-b/0003, again.png", None, etag="9b2cf535f27731c974343645a3985328", size=79002),
    row("line-2/cam-b/0004.png", storage_class="DEEP_ARCHIVE"),
    row(
        "line-2/cam-b/0005.png",
        storage_class="INTELLIGENT_TIERING",
        intelligent_tiering_access_tier="ARCHIVE",
    ),
    row("line-3/cam c/größe+100% =1.PNG", None),
]


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_samples_read_to_exact_rows(form: str) -> None:
    folder = SAMPLES / "plant" / form.lower() / "2025-03-02T01-00Z"
    said = (folder / "manifest.json").read_bytes()
    verify_checksum(said, (folder / "manifest.checksum").read_bytes())
    inventory = parse(said)
    files = [SAMPLES / entry.key for entry in inventory.files]
    for path, each in zip(files, inventory.files, strict=True):
        verify_file(path, each)
    found = InventoryReader(inventory, files)
    assert rows(found) == IMAGES
    assert found.left_out == LEFT_OUT
    assert found.schema_extras.names == EXTRAS
    # The same image has the same name as in the other samples.
    first = IMAGES[0]
    assert image_id(first["uri"], first["version_id"], first["etag"]) == "303d28979301d4781242f1fd35bb9380"


def test_the_samples_are_those_of_the_script() -> None:
    made = samples()
    there = {str(path.relative_to(SAMPLES)): path for path in SAMPLES.rglob("*") if path.is_file()}
    assert there.keys() == made.keys()
    for name, data in made.items():
        assert content(name, there[name].read_bytes()) == content(name, data), name


def content(name: str, data: bytes) -> Any:
    """What a file says, whatever the versions of the libraries that wrote it."""
    if name.endswith(".csv.gz"):
        return gzip.decompress(data)
    if name.endswith(".orc"):
        return orc.read_table(io.BytesIO(data))
    if name.endswith(".parquet"):
        return pq.read_table(io.BytesIO(data))
    if name.endswith("manifest.checksum"):
        return len(data)
    said = parse(data)
    return said.model_copy(update={"files": tuple(each.key for each in said.files)})


def test_without_versions_there_are_none(form: str, tmp_path: Path) -> None:
    current = [each for each in OBJECTS if each["IsLatest"] and not each["IsDeleteMarker"]]
    found = reader(tmp_path, form, [data_file(current, form, UNVERSIONED)], UNVERSIONED)
    assert rows(found) == [each | {"version_id": None} for each in IMAGES]
    assert found.left_out == {"delete_marker": 0, "old_version": 0, "folder": 1, "not_an_image": 1}


def test_columns_may_be_few_and_in_any_order(form: str, tmp_path: Path) -> None:
    columns = ("Size", "Key", "ObjectOwner", "Bucket")
    found = reader(tmp_path, form, [data_file(OBJECTS, form, columns)], columns)
    nothing = {"version_id": None, "etag": None}
    keys = [each["Key"] for each in OBJECTS if each["Key"].lower().endswith(".png")]
    sizes = [each["Size"] for each in OBJECTS if each["Key"].lower().endswith(".png")]
    assert found.schema_extras.names == ["size"]
    left = [name for name in row("x") if name in (*batch_schema(pa.schema([])).names, "size")]
    expected = [row(key, **nothing, size=size) for key, size in zip(keys, sizes, strict=True)]
    assert rows(found) == [{name: each[name] for name in left} for each in expected]
    assert found.left_out == {"delete_marker": 0, "old_version": 0, "folder": 1, "not_an_image": 1}


def test_files_are_read_in_order_and_counted_together_and_anew(form: str, tmp_path: Path) -> None:
    parts = [data_file(each, form) for each in (OBJECTS[7:], [], OBJECTS[:7])]
    found = reader(tmp_path, form, parts)
    assert found.left_out == dict.fromkeys(LEFT_OUT, 0)
    for _ in range(2):
        assert rows(found) == IMAGES[2:] + IMAGES[:2]
        assert found.left_out == LEFT_OUT


def test_a_reason_is_counted_once_and_a_marker_is_no_old_version(form: str, tmp_path: Path) -> None:
    objects = [
        entry("a.png", IsDeleteMarker=True, IsLatest=False),
        entry("notes.txt", IsLatest=False),
        entry("folder/", IsLatest=False),
        entry("folder/", Size=0),
        entry("folder/", Size=1),
        entry("b.png/", Size=0),
        entry("c.png", IsLatest=None, IsDeleteMarker=None, Size=0),
    ]
    found = reader(tmp_path, form, [data_file(objects, form)])
    assert [each["uri"] for each in rows(found)] == ["s3://plant/c.png"]
    assert found.left_out == {"delete_marker": 1, "old_version": 2, "folder": 2, "not_an_image": 1}


def test_what_the_keys_say_becomes_columns(form: str, tmp_path: Path) -> None:
    objects = [entry("line 1/c+1/2025-03-01/a.png"), entry("loose.png"), entry("l/c/2025-02-31/b.png")]
    pattern = PathPattern("{line}/{camera}/{captured_at:%Y-%m-%d}/*")
    found = reader(tmp_path, form, [data_file(objects, form)], pattern=pattern)
    said = {"line": "line 1", "camera": "c+1", "captured_at": datetime(2025, 3, 1, tzinfo=UTC)}
    assert rows(found) == [row("line 1/c+1/2025-03-01/a.png", **said), row("loose.png"), row("l/c/2025-02-31/b.png")]
    assert found.unmatched == 2


def test_many_rows_come_in_pieces(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_files, "MAX_ROWS", 7)
    objects = [entry(f"{i:03d}.png") for i in range(49)] + [entry("last.png", Bucket="")]
    found = reader(tmp_path, form, [data_file(objects, form)])
    batches = list(found.batches())
    assert [len(batch) for batch in batches] == [7] * 7 + [1]
    all_rows = [row for batch in batches for row in batch.to_pylist()]
    assert [each["uri"] for each in all_rows] == [*(f"s3://plant/{i:03d}.png" for i in range(49)), None]
    assert all_rows[-1]["problem_message"] == ("line 50: no bucket" if form == "CSV" else "row 49: no bucket")


def test_orc_is_read_stripe_by_stripe(tmp_path: Path) -> None:
    objects = [entry(f"{i:06d}.png") for i in range(20_000)]
    objects[19_000]["Bucket"] = ""
    table = orc.read_table(io.BytesIO(data_file(objects, "ORC")))
    sink = io.BytesIO()
    orc.write_table(table, sink, compression="uncompressed", stripe_size=64 * 1024, batch_size=1024)
    assert orc.ORCFile(io.BytesIO(sink.getvalue())).nstripes > 2
    batches = list(reader(tmp_path, "ORC", [sink.getvalue()]).batches())
    assert len(batches) == orc.ORCFile(io.BytesIO(sink.getvalue())).nstripes
    found = [row for batch in batches for row in batch.to_pylist()]
    assert [each["uri"] for each in found if each["uri"]] == [
        f"s3://plant/{i:06d}.png" for i in range(20_000) if i != 19_000
    ]
    assert found[19_000]["problem_message"] == "row 19000: no bucket"


def test_lines_that_cannot_be_read_are_rows_with_a_problem(tmp_path: Path) -> None:
    good = csv_text([entry("a.png")])
    fields = good.rstrip("\n").split(",")
    lines = [
        good,
        good.replace('"plant","a.png"', '"plant"'),
        '"plant","notes.txt"\n',
        good.replace("a.png", "100%.png"),
        good.replace("a.png", "100%.txt"),
        good.replace("a.png", "%FF.png"),
        good.replace('"a.png"', '""'),
        good.replace('"plant"', '""'),
        good.replace('"true"', '"perhaps"'),
        good.replace("81234", "many"),
        good.replace("2025-03-01T22:15:00.000Z", "last night"),
        good.replace("a.png", "a%0Ab.png"),
        '"plant","b".png",' + ",".join(fields[2:]) + "\n",
    ]
    text = "".join(lines).encode() + good.replace("a.png", "M\xfc.png").encode("latin-1") + good.encode()
    found = reader(tmp_path, "CSV", [gzip.compress(text, mtime=0)])
    seen = [(each["uri"], each["problem_code"], each["problem_message"]) for each in rows(found)]
    shown = [(uri, code, (message or "")[:52]) for uri, code, message in seen]
    assert shown == [
        ("s3://plant/a.png", None, ""),
        ("s3://plant/v1", "malformed_row", 'line 2: 10 fields, fileSchema has 11: "plant","v1","'[:52]),
        ("s3://plant/notes.txt", "malformed_row", 'line 3: 2 fields, fileSchema has 11: "plant","notes.t'[:52]),
        ("s3://plant/100%.png", "malformed_row", "line 4: the key '100%.png' is not URL-encoded (a per"),
        ("s3://plant/100%.txt", "malformed_row", "line 5: the key '100%.txt' is not URL-encoded (a per"),
        ("s3://plant/\ufffd.png", "not_utf8", "line 6: the key '%FF.png' is not UTF-8"),
        (None, "malformed_row", "line 7: no key"),
        (None, "malformed_row", "line 8: no bucket"),
        ("s3://plant/a.png", "malformed_value", "line 9: column islatest: 'perhaps' is neither true n"),
        ("s3://plant/a.png", "malformed_value", "line 10: column size: 'many' is not a whole number o"),
        ("s3://plant/a.png", "malformed_value", "line 11: column last_modified: 'last night' is not a"),
        ("s3://plant/a\nb.png", "control_character", "line 12: control character in the uri 's3://plant/a\\"),
        ('s3://plant/b.png"', "malformed_row", "line 13: not CSV (',' expected after '\"'): \"plant\",\"b"[:52]),
        ("s3://plant/M\ufffd.png", "not_utf8", 'line 14: not UTF-8: "plant","M\ufffd.png","v1","true","fals'[:52]),
        ("s3://plant/a.png", None, ""),
    ]
    assert found.left_out == dict.fromkeys(LEFT_OUT, 0)


def test_a_problem_names_its_file_where_there_are_several(form: str, tmp_path: Path) -> None:
    parts = [data_file(each, form) for each in ([entry("a.png")], [entry("b.png"), entry("c.png", Bucket="")])]
    (bad,) = (each for each in rows(reader(tmp_path, form, parts)) if each["problem_code"])
    place = "line 2" if form == "CSV" else "row 1"
    assert bad["problem_message"] == f"part-1.x: {place}: no bucket"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ORC", pa.binary()),
        ("ORC", pa.string()),
        ("Parquet", pa.binary()),
        ("Parquet", pa.string()),
        ("Parquet", pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_bytes_that_are_no_text_are_shown_and_said(kind: str, text: pa.DataType, tmp_path: Path) -> None:
    columns = ("Bucket", "Key", "StorageClass")
    plain = pa.array([b"a.png", b"\xff.png", None, b"c.png"], pa.binary())
    storage = pa.array([b"STANDARD", b"STANDARD", b"STANDARD", b"\xfe"], pa.binary())
    if text != pa.binary():
        plain, storage = (column.view(pa.string()) for column in (plain, storage))
    if pa.types.is_dictionary(text):
        plain, storage = plain.dictionary_encode(), storage.dictionary_encode()
    table = pa.table({"bucket": ["plant"] * 4, "key": plain, "storage_class": storage})
    sink = io.BytesIO()
    (orc if kind == "ORC" else pq).write_table(table, sink)
    found = [
        (each["uri"], each["storage_class"], each["problem_code"], each["problem_message"])
        for each in rows(reader(tmp_path, kind, [sink.getvalue()], columns))
    ]
    assert found == [
        ("s3://plant/a.png", "STANDARD", None, None),
        ("s3://plant/\ufffd.png", "STANDARD", "not_utf8", "row 1: not UTF-8 in column key"),
        (None, "STANDARD", "malformed_row", "row 2: no key"),
        ("s3://plant/c.png", "\ufffd", "not_utf8", "row 3: not UTF-8 in column storage_class"),
    ]


def test_times_out_of_range_cost_their_row(tmp_path: Path) -> None:
    columns = ("Bucket", "Key", "LastModifiedDate")
    times = pa.array([0, 2**60], pa.timestamp("ms"))
    table = pa.table({"bucket": ["plant"] * 2, "key": ["a.png", "b.png"], "last_modified_date": times})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    first, second = rows(reader(tmp_path, "Parquet", [sink.getvalue()], columns))
    assert (first["last_modified"], first["problem_code"]) == (datetime(1970, 1, 1, tzinfo=UTC), None)
    assert (second["last_modified"], second["problem_code"]) == (None, "malformed_value")
    assert second["problem_message"].startswith("row 1: column last_modified: 1152921504606846976 ms since 1970")


def test_a_problem_says_its_own_line_whatever_was_left_out_before(form: str, tmp_path: Path) -> None:
    columns = ("Bucket", "Key", "LastModifiedDate")
    objects = [entry("notes.txt"), entry("a.png"), entry("b/"), entry("c.png")]
    data = data_file(objects, form, columns)
    if form == "CSV":
        lines = gzip.decompress(data).decode().splitlines(keepends=True)
        data = gzip.compress("".join([*lines[:3], lines[3].replace("2025-", "May ")]).encode())
    else:
        table = (orc if form == "ORC" else pq).read_table(io.BytesIO(data))
        texts = pa.array(["", "", "", "May 03-01T22:15:00.000Z"])
        sink = io.BytesIO()
        (orc if form == "ORC" else pq).write_table(table.set_column(2, "last_modified_date", texts), sink)
        data = sink.getvalue()
    found = [each["problem_message"] for each in rows(reader(tmp_path, form, [data], columns))]
    place = "line 4" if form == "CSV" else "row 3"
    assert found == [None, f"{place}: column last_modified: 'May 03-01T22:15:00.000Z' is not an ISO 8601 time"]


def test_a_file_that_is_not_whole_is_named(form: str, tmp_path: Path) -> None:
    whole = data_file([entry(f"{i}.png") for i in range(2000)], form)
    for part in (whole[: len(whole) // 2], whole[:-5], b"" if form != "CSV" else whole[:10]):
        found = reader(tmp_path, form, [data_file([], form), part])
        with pytest.raises(ManifestError) as caught:
            list(found.batches())
        assert str(caught.value).startswith("all/data/part-1.x: ")
        assert ("gzip file is damaged" if form == "CSV" else f"not a whole {form} file") in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("kind", ["ORC", "Parquet"])
def test_a_file_of_other_columns_is_refused(kind: str, tmp_path: Path) -> None:
    other = data_file(OBJECTS, kind, ("Bucket", "Key", "Size"))
    with pytest.raises(ManifestError, match=r"^all/data/part-0\.x: has no column islatest, isdeletemarker, which file"):
        rows(reader(tmp_path, kind, [other], ("Bucket", "Key", "IsLatest", "IsDeleteMarker")))
    sink = io.BytesIO()
    (orc if kind == "ORC" else pq).write_table(pa.table({"bucket": ["plant"], "key": [1]}), sink)
    with pytest.raises(ManifestError, match=r"^all/data/part-0\.x: column key is of type int64, which no inventory"):
        rows(reader(tmp_path, kind, [sink.getvalue()], ("Bucket", "Key")))


def test_as_many_files_as_the_manifest_lists(tmp_path: Path) -> None:
    inventory = parse(manifest_json("CSV", {"all/data/1.csv.gz": b""}))
    with pytest.raises(ValueError, match="2 files for an inventory of 1"):
        InventoryReader(inventory, [tmp_path / "1", tmp_path / "2"])


def test_types_are_the_same_in_all_formats(form: str, tmp_path: Path) -> None:
    assert reader(tmp_path, form, [data_file(OBJECTS, form)]).schema_extras == pa.schema(
        [("size", pa.int64()), ("last_modified", TIME), *((name, pa.string()) for name in EXTRAS[2:])]
    )


def test_a_delivery_below_a_prefix_reads_alike(form: str, tmp_path: Path) -> None:
    objects = delivery(form, [OBJECTS[:4], OBJECTS[4:]], above="inventories/plant/all/")
    write(tmp_path, objects)
    inventory = parse(objects["inventories/plant/all/2025-03-02T01-00Z/manifest.json"])
    assert rows(InventoryReader(inventory, [tmp_path / each.key for each in inventory.files])) == IMAGES


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("line-1/a.png", "line-1/a.png"),
        ("a+b.png", "a b.png"),
        ("a%20b.png", "a b.png"),
        ("a%2Bb.png", "a+b.png"),
        ("a%2bb.png", "a+b.png"),
        ("100%25.png", "100%.png"),
        ("%2541.png", "%41.png"),
        ("gr%C3%B6%C3%9Fe.png", "größe.png"),
        ("date%3D2025-03-01/%E6%97%A5.png", "date=2025-03-01/日.png"),
        ("größe+1.png", "größe 1.png"),
    ],
)
def test_keys_are_decoded_as_s3_encodes_them(encoded: str, key: str) -> None:
    assert decode_key(encoded) == key


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_key_comes_back_from_its_encoding(key: str) -> None:
    # How much beyond the necessary is escaped is not documented.
    for encoded in (
        quote_plus(key, safe="/"),
        quote_plus(key, safe=""),
        quote(key, safe="/*!'()"),
        quote_plus(key, "/*~"),
    ):
        assert decode_key(encoded) == key


@given(st.text("ab%+2BFfC3A/ \xfc", min_size=1))
def test_what_is_no_encoding_is_refused_and_never_guessed(text: str) -> None:
    try:
        key = decode_key(text)
    except ValueError:
        assert "%" in text
        return
    assert decode_key(quote_plus(key, safe="/")) == key
    assert len(key.encode()) == len(text.encode()) - 2 * text.count("%")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
            st.sampled_from([".png", ".txt", "/"]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_every_object_is_a_row_or_counted_as_left_out(objects: list[tuple[str, str, bool, bool]]) -> None:
    entries = [
        entry(name + end, IsLatest=latest, IsDeleteMarker=marker, Size=0) for name, end, latest, marker in objects
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inventory_files, "MAX_ROWS", 3)
        for form in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                found = reader(Path(folder), form, [data_file(entries, form)])
                there = [each["uri"] for each in rows(found)]
            wanted = [e["Key"] for e, o in zip(entries, objects, strict=True) if o[1] == ".png" and o[2] and not o[3]]
            assert there == [f"s3://plant/{key}" for key in wanted]
            assert len(there) + sum(found.left_out.values()) == len(objects)
