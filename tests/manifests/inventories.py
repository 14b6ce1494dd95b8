"""Inventories as S3 delivers them, made up: manifest.json, manifest.checksum and data files in one of three formats.

``python -m tests.manifests.inventories manifests/samples/inventory`` writes the samples anew.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq

FORMATS = ("CSV", "ORC", "Parquet")
ENDS = {"CSV": "csv.gz", "ORC": "orc", "Parquet": "parquet"}
TIME = "2025-03-02T01-00Z"
TAKEN = datetime(2025, 3, 1, 22, 15, tzinfo=UTC)

# CSV name, name in ORC and Parquet, type in the schema of ORC, of Parquet.
COLUMNS = {
    "Bucket": ("bucket", "string", "required binary bucket (UTF8)"),
    "Key": ("key", "string", "required binary key (UTF8)"),
    "VersionId": ("version_id", "string", "optional binary version_id (UTF8)"),
    "IsLatest": ("is_latest", "boolean", "optional boolean is_latest"),
    "IsDeleteMarker": ("is_delete_marker", "boolean", "optional boolean is_delete_marker"),
    "Size": ("size", "bigint", "optional int64 size"),
    "LastModifiedDate": ("last_modified_date", "timestamp", "optional int64 last_modified_date (TIMESTAMP_MILLIS)"),
    "ETag": ("e_tag", "string", "optional binary e_tag (UTF8)"),
    "StorageClass": ("storage_class", "string", "optional binary storage_class (UTF8)"),
    "IntelligentTieringAccessTier": (
        "intelligent_tiering_access_tier",
        "string",
        "optional binary intelligent_tiering_access_tier (UTF8)",
    ),
    "ObjectOwner": ("object_owner", "string", "optional binary object_owner (UTF8)"),
}
ALL = tuple(COLUMNS)
UNVERSIONED = tuple(name for name in ALL if name not in ("VersionId", "IsLatest", "IsDeleteMarker"))
_ARROW = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "bigint": pa.int64(),
    "timestamp": pa.timestamp("ms", tz="UTC"),
}


def entry(key: str, version: str | None = "v1", **other: Any) -> dict[str, Any]:
    """One object, by CSV names; what is not given is that of an ordinary current one."""
    usual = {
        "Bucket": "plant",
        "Key": key,
        "VersionId": version,
        "IsLatest": True,
        "IsDeleteMarker": False,
        "Size": 81234,
        "LastModifiedDate": TAKEN,
        "ETag": hashlib.md5(key.encode()).hexdigest(),
        "StorageClass": "STANDARD",
        "IntelligentTieringAccessTier": None,
        "ObjectOwner": "0123456789",
    }
    return usual | other


OBJECTS = [
    entry("line-1/", Size=0),
    entry("line-1/cam-a/0001.png"),
    entry("line-1/cam-a/0002.png", Size=80111),
    entry("line-1/cam-a/0002.png", "v0", IsLatest=False),
    entry("line-1/cam-a/gone.png", "v2", IsDeleteMarker=True, Size=None, ETag=None, StorageClass=None),
    entry("line-1/cam-a/gone.png", "v1", IsLatest=False),
    entry("line-1/notes.txt"),
    entry("line-2/cam-b/0003, again.png", "null", ETag="9b2cf535f27731c974343645a3985328", Size=79002),
    entry("line-2/cam-b/0004.png", StorageClass="DEEP_ARCHIVE"),
    entry("line-2/cam-b/0005.png", StorageClass="INTELLIGENT_TIERING", IntelligentTieringAccessTier="ARCHIVE"),
    entry("line-3/cam c/größe+100% =1.PNG", None),
]


def data_file(rows: Sequence[dict[str, Any]], form: str, columns: Sequence[str] = ALL) -> bytes:
    """One data file of these objects."""
    if form == "CSV":
        return gzip.compress(csv_text(rows, columns).encode(), mtime=0)
    fields = {COLUMNS[name][0]: _ARROW[COLUMNS[name][1]] for name in columns}
    table = pa.table(
        {
            own: pa.array([row[name] for row in rows], kind)
            for name, (own, kind) in zip(columns, fields.items(), strict=True)
        }
    )
    sink = io.BytesIO()
    if form == "ORC":
        orc.write_table(table, sink, compression="zlib")
    else:
        pq.write_table(table, sink, compression="snappy")
    return sink.getvalue()


def csv_text(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ALL) -> str:
    """The lines of a CSV inventory: every field in quotes, no header, keys URL-encoded."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([[_field(name, row[name]) for name in columns] for row in rows])
    return text.getvalue()


def _field(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "Key":
        return quote_plus(value, safe="/")
    if isinstance(value, bool):
        return str(value).lower()
    return value.strftime("%Y-%m-%dT%H:%M:%S.000Z") if isinstance(value, datetime) else str(value)


def file_schema(form: str, columns: Sequence[str] = ALL) -> str:
    """The columns as manifest.json of that format says them."""
    if form == "CSV":
        return ", ".join(columns)
    if form == "ORC":
        return f"struct<{','.join(':'.join(COLUMNS[name][:2]) for name in columns)}>"
    return f"message s3.inventory {{  {' '.join(COLUMNS[name][2] + ';' for name in columns)}}}"


def manifest_json(form: str, data_files: dict[str, bytes], columns: Sequence[str] = ALL, **other: Any) -> bytes:
    """A manifest.json of these data files, by key. other: what it says instead."""
    said: dict[str, Any] = {
        "sourceBucket": "plant",
        "destinationBucket": "arn:aws:s3:::inventories",
        "version": "2016-11-30",
        "creationTimestamp": "1740877200000",
        "fileFormat": form,
        "fileSchema": file_schema(form, columns),
        "files": [
            {"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}
            for key, data in data_files.items()
        ],
    }
    return json.dumps(said | other, indent=2).encode()


def delivery(
    form: str,
    parts: Sequence[Sequence[dict[str, Any]]],
    columns: Sequence[str] = ALL,
    time: str = TIME,
    above: str = "",
) -> dict[str, bytes]:
    """All objects of one inventory, by key. above: the prefix of its configuration, with a slash at its end."""
    names = [f"data/{hashlib.md5(f'{time}{i}'.encode()).hexdigest()}.{ENDS[form]}" for i in range(len(parts))]
    files = {name: data_file(rows, form, columns) for name, rows in zip(names, parts, strict=True)}
    said = manifest_json(form, {above + name: data for name, data in files.items()}, columns)
    checksum = hashlib.md5(said).hexdigest().encode()
    found = {**files, f"{time}/manifest.json": said, f"{time}/manifest.checksum": checksum}
    return {above + name: data for name, data in found.items()}


def samples() -> dict[str, bytes]:
    """The samples in manifests/samples/inventory, by name: an inventory of each format, as a bucket would hold it."""
    found: dict[str, bytes] = {}
    for form in FORMATS:
        above = f"plant/{form.lower()}/"
        found |= delivery(form, [OBJECTS[:6], OBJECTS[6:]] if form == "CSV" else [OBJECTS], above=above)
    return found


def write(folder: Path, objects: dict[str, bytes]) -> None:
    """The objects as files below a folder."""
    for key, data in objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]), samples())
