"""The manifest of an S3 Inventory: what it says, whether the files are whole, and which one is the newest."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from manifests.inventory import (
    DataFile,
    is_inventory_key,
    newest,
    parse,
    verify_checksum,
    verify_file,
)
from manifests.schema import ManifestError
from tests.manifests.inventories import ALL, FORMATS, UNVERSIONED, file_schema, manifest_json

FILE = {"plant/all/data/1.csv.gz": b"what is in it"}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("columns", [ALL, UNVERSIONED])
def test_what_the_manifest_says(form: str, columns: tuple[str, ...]) -> None:
    found = parse(manifest_json(form, FILE, columns))
    assert (found.source_bucket, found.destination_bucket) == ("plant", "inventories")
    assert (found.version, found.format) == ("2016-11-30", form)
    assert found.created == datetime(2025, 3, 2, 1, tzinfo=UTC)
    assert found.columns == tuple(name.lower() for name in columns)
    (file,) = found.files
    assert (file.key, file.size, file.name) == ("plant/all/data/1.csv.gz", 13, "1.csv.gz")
    assert file.md5 == hashlib.md5(b"what is in it").hexdigest()


def test_what_may_be_written_in_other_ways() -> None:
    found = parse(manifest_json("CSV", {}, destinationBucket="my-inventories", creationTimestamp=1740877200123))
    assert found.destination_bucket == "my-inventories"
    assert found.created == datetime(2025, 3, 2, 1, 0, 0, 123_000, tzinfo=UTC)
    assert parse(manifest_json("CSV", {}, destinationBucket="arn:aws-cn:s3:::b")).destination_bucket == "b"
    assert parse(manifest_json("Parquet", {}, fileFormat="PARQUET")).format == "Parquet"
    assert parse(manifest_json("CSV", {}, somethingNew=1)).files == ()


def file(**changed: Any) -> dict[str, Any]:
    return {"key": "a/data/1.orc", "size": 1, "MD5checksum": "0" * 32} | changed


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"fileFormat": "JSON"}, r"fileFormat: Input should be 'CSV', 'ORC' or 'Parquet'"),
        ({"fileSchema": "Bucket, Size"}, r"fileSchema: no Key in 'Bucket, Size'"),
        ({"fileSchema": "Key, Size"}, r"fileSchema: no Bucket in 'Key, Size'"),
        ({"fileSchema": ""}, r"fileSchema: no Bucket and no Key in ''"),
        ({"fileSchema": "Bucket, Key, Size, size"}, r"fileSchema: a column twice: size"),
        ({"fileFormat": "ORC", "fileSchema": "struct<bucket:string,keys:string>"}, r"fileSchema: no Key in "),
        (
            {"fileFormat": "Parquet", "fileSchema": "message m { required binary key (UTF8); }"},
            r"fileSchema: no Bucket in ",
        ),
        ({"creationTimestamp": "last night"}, r"creationTimestamp: 'last night' is not a number of milliseconds"),
        ({"creationTimestamp": "9" * 15}, r"creationTimestamp: [^ ]* is out of range"),
        ({"sourceBucket": None}, r"sourceBucket: Input should be a valid string"),
        ({"files": None}, r"files: Input should be a valid array"),
        ({"files": [file(size=-1)]}, r"files\.0\.size: "),
        ({"files": [file(), file(MD5checksum="5925f4e78e1695c2d020b9f6eexample")]}, r"files\.1\.MD5checksum: "),
        ({"files": [file(key="")]}, r"files\.0\.key: "),
        ({"files": [file(key="a/../../etc/passwd")]}, r"files\.0\.key: 'a/\.\./\.\./etc/passwd' names no data file"),
        ({"files": [file(key="a/data/..")]}, r"files\.0\.key: "),
        ({"files": [file(key="a/b\0")]}, r"files\.0\.key: .*names no data file"),
    ],
)
def test_a_manifest_that_is_none_is_refused_naming_what_is_wrong(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ManifestError, match=rf"^s3://b/m: not the manifest.json of an S3 Inventory \({says}.*copy it"):
        parse(manifest_json("CSV", {}, **changed), "s3://b/m")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"uri": "s3://a/b"}', b"uri,etag\n"])
def test_what_is_no_manifest_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^s3://b/m: not the manifest.json of an S3 Inventory \("):
        parse(data, "s3://b/m")


def test_the_checksum_is_the_md5_of_the_bytes() -> None:
    said = manifest_json("CSV", FILE)
    checksum = hashlib.md5(said).hexdigest()
    verify_checksum(said, checksum.encode())
    verify_checksum(said, checksum.upper().encode() + b"\n")
    changed = said.replace(b"plant/all", b"plant/alt")
    with pytest.raises(ManifestError, match=rf"^s3://b/m: .* MD5 [0-9a-f]{{32}}, manifest.checksum says {checksum};"):
        verify_checksum(changed, checksum.encode(), "s3://b/m")
    for wrong in (b"", checksum.encode()[:31], b"\xff" * 32, b"<html>"):
        with pytest.raises(ManifestError, match=r"^s3://b/m: its manifest.checksum holds no MD5 but "):
            verify_checksum(said, wrong, "s3://b/m")


def test_size_and_md5_of_a_data_file(tmp_path: Path) -> None:
    entry = DataFile.model_validate(file(size=3, MD5checksum=hashlib.md5(b"abc").hexdigest().upper()))
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    verify_file(path, entry)
    path.write_bytes(b"abd")
    with pytest.raises(ManifestError, match=r"^a/data/1\.orc: its MD5 is 4911e516.*, manifest.json says 90015098"):
        verify_file(path, entry)
    path.write_bytes(b"ab")
    with pytest.raises(ManifestError, match=r"^a/data/1\.orc: has 2 bytes, manifest.json says 3;"):
        verify_file(path, entry)


def delivered(*folders: str, finished: bool = True) -> list[str]:
    names = ["manifest.json", "manifest.checksum"] if finished else ["manifest.json"]
    return [f"{folder}/{name}" for folder in folders for name in names]


DAYS = delivered("plant/all/2026-11-22T01-00Z", "plant/all/2026-11-24T01-00Z", "plant/all/2026-11-23T01-00Z")
NOISE = [
    "plant/all/data/1.csv.gz",
    "plant/all/hive/dt=2026-11-25-01-00/symlink.txt",
    "plant/all/2026-11-25/manifest.json",
    "plant/all/2026-11-25T01-00Z/manifest.json.bak",
    "plant/all/x2026-11-25T01-00Z/manifest.json",
    "plant/all/2026-11-25T01-00Z/manifest.json/x",
]


def test_the_newest_finished_inventory_is_taken() -> None:
    assert newest([*NOISE, *DAYS]) == "plant/all/2026-11-24T01-00Z/manifest.json"
    unfinished = [*DAYS, *delivered("plant/all/2026-11-25T01-00Z", finished=False)]
    assert newest(unfinished) == "plant/all/2026-11-24T01-00Z/manifest.json"
    assert newest([*unfinished, "plant/all/2026-11-25T01-00Z/manifest.checksum"]).startswith("plant/all/2026-11-25T")
    # A checksum alone is none either: someone has begun to delete.
    assert newest([*DAYS, "plant/all/2026-11-26T01-00Z/manifest.checksum"]).startswith("plant/all/2026-11-24T")
    assert newest(key.removeprefix("plant/all/") for key in DAYS) == "2026-11-24T01-00Z/manifest.json"


def test_the_newest_of_a_day() -> None:
    twice = [
        *DAYS,
        *delivered("plant/all/2026-11-23T09-30Z"),
        *delivered("plant/all/2026-11-23T10-00Z", finished=False),
    ]
    assert newest(twice, "2026-11-23") == "plant/all/2026-11-23T09-30Z/manifest.json"
    assert newest(twice, "2026-11-22") == "plant/all/2026-11-22T01-00Z/manifest.json"


def test_a_day_without_an_inventory_names_those_that_there_are() -> None:
    keys = [*DAYS, *delivered("plant/all/2026-11-25T01-00Z", finished=False)]
    last = "2026-11-22T01-00Z, 2026-11-23T01-00Z, 2026-11-24T01-00Z"
    with pytest.raises(ManifestError) as caught:
        newest(keys, "2026-11-25")
    assert str(caught.value) == (
        f"no finished inventory of 2026-11-25; the last ones are {last}; "
        "not finished (no manifest.json with a manifest.checksum): 2026-11-25T01-00Z"
    )
    for date in ("2026-11-2", "20261124", "2026-11-31", "today", "", "2026-11-24T01"):
        with pytest.raises(ManifestError, match=rf"^'{date}' is not the date of an inventory; write it as YYYY-MM-DD"):
            newest(keys, date)


def test_several_configurations_are_refused_by_name() -> None:
    # Also if only one of them is finished: else another list would be audited on another night.
    other = delivered("plant/weekly/2026-11-01T01-00Z", finished=False)
    with pytest.raises(ManifestError, match=r"^there are several inventories here \(plant/all, plant/weekly\); give"):
        newest([*DAYS, *other])
    with pytest.raises(ManifestError, match=r"\(plant/all, plant2/all\)"):
        newest([*DAYS, *delivered("plant2/all/2026-11-01T01-00Z")])


def test_no_inventory_at_all_says_so() -> None:
    for keys in ([], NOISE[:2], ["a.png", "manifest.json", "manifest.checksum"]):
        with pytest.raises(ManifestError, match=r"^there is no inventory here; give the prefix"):
            newest(keys)


def test_the_keys_of_an_inventory() -> None:
    assert all(is_inventory_key(key) for key in DAYS)
    assert not any(is_inventory_key(key) for key in (*NOISE, "manifest.json", "2026-11-24T01-00Z"))


def test_the_schema_of_each_format_is_the_one_that_is_documented() -> None:
    """The examples of the tests are worth nothing if S3 writes something else: these are shortened from its manual."""
    columns = ("Bucket", "Key", "VersionId", "IsLatest", "Size", "LastModifiedDate", "ETag")
    assert file_schema("CSV", columns) == "Bucket, Key, VersionId, IsLatest, Size, LastModifiedDate, ETag"
    assert file_schema("ORC", columns) == (
        "struct<bucket:string,key:string,version_id:string,is_latest:boolean,size:bigint,"
        "last_modified_date:timestamp,e_tag:string>"
    )
    assert " ".join(file_schema("Parquet", columns).split()) == (
        "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); "
        "optional binary version_id (UTF8); optional boolean is_latest; optional int64 size; "
        "optional int64 last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8);}"
    )
    assert json.loads(manifest_json("CSV", FILE))["files"][0].keys() == {"key", "size", "MD5checksum"}
