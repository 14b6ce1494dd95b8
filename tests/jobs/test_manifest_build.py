"""Building a manifest from what lies in a folder or below a prefix: the exact rows."""

from __future__ import annotations

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.listing import listing
from jobs.manifest.build import Built, build_manifest
from jobs.manifest.command import Asked, build_command
from jobs.manifest.sources import SourceOptions
from jobs.manifest.write import Written
from jobs.storage import exists, read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import is_local, join
from manifests.schema import ManifestError

IMAGES = {
    "L1/c1/2026-03-14/a.png": b"1",
    "L1/c1/2026-03-14/b c.JPG": b"12",
    "L1/c2/2026-03-15/%41#?.webp": b"123",
    "L2/c1/2026-02-30/no such day.bmp": b"1234",
    "L2/loose.tiff": b"",
    "ünï::x.gif": b"12345",
}
OTHERS = ["notes.txt", "L1/thumbs.db", "L1/c1/png", "L1/a.png.part", "L1/.hidden", "manifest.parquet", "a.pngx"]


def build_one(source: str, output: str, pattern: str | None = None) -> Built:
    return build_manifest([source], output, SourceOptions(pattern=pattern))


def asked(source: str, pattern: str | None = None) -> Asked:
    return Asked((source,), None, None, None, pattern, None, None, None)


@pytest.fixture
def archive(place: str) -> str:
    for name, data in IMAGES.items():
        write_bytes(join(place, "archive", name), data)
    for name in OTHERS:
        write_bytes(join(place, "archive", name), b"something else")
    write_bytes(join(place, "archive-2", "neighbour.png"), b"x")
    return join(place, "archive")


def modified(uri: str) -> datetime:
    """When an object was last written, asked without the code under test."""
    if is_local(uri):
        return datetime.fromtimestamp(os.stat(uri).st_mtime, UTC)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    found = boto3.client("s3").head_object(Bucket=bucket, Key=key)["LastModified"]
    assert isinstance(found, datetime)
    return found


def rows(uri: str) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(read_bytes(uri))).to_pylist()


def tag(archive: str, name: str) -> str:
    """Of an object its ETag; of a file its time in microseconds and its size."""
    if is_local(archive):
        return f"{round(modified(f'{archive}/{name}').timestamp() * 1e6):x}-{len(IMAGES[name]):x}"
    return hashlib.md5(IMAGES[name], usedforsecurity=False).hexdigest()


def expected(archive: str, **said: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "uri": f"{archive}/{name}",
            "size": len(IMAGES[name]),
            "etag": tag(archive, name),
            "last_modified": modified(f"{archive}/{name}"),
        }
        for name in sorted(IMAGES)
    ]


def test_every_image_is_a_row_and_nothing_else_is(archive: str, place: str) -> None:
    output = join(place, "out", "night.parquet")
    assert build_one(archive + "/", output) == Built(Written(6, 0, None, {}, bytes=15), unmatched=0)
    assert rows(output) == expected(archive)
    schema = pq.read_schema(io.BytesIO(read_bytes(output)))
    assert schema.names == ["uri", "size", "etag", "last_modified"]
    assert schema.field("size").type == pa.int64()
    assert schema.field("last_modified").type == pa.timestamp("us", tz="UTC")
    for row in rows(output):
        assert len(read_bytes(row["uri"])) == row["size"]
    assert [e.relative_path for e in listing(join(place, "out"))] == ["night.parquet"]


def test_what_the_paths_say_becomes_columns(archive: str, place: str) -> None:
    output = join(place, "night.parquet")
    summary = build_one(archive, output, "{line}/{camera}/{captured_at:%Y-%m-%d}/*")
    assert summary == Built(Written(6, 0, None, {}, bytes=15), unmatched=3)
    nothing = {"line": None, "camera": None, "captured_at": None}
    said = {
        "L1/c1/2026-03-14/a.png": {"line": "L1", "camera": "c1", "captured_at": datetime(2026, 3, 14, tzinfo=UTC)},
        "L1/c1/2026-03-14/b c.JPG": {"line": "L1", "camera": "c1", "captured_at": datetime(2026, 3, 14, tzinfo=UTC)},
        "L1/c2/2026-03-15/%41#?.webp": {"line": "L1", "camera": "c2", "captured_at": datetime(2026, 3, 15, tzinfo=UTC)},
    }
    names = sorted(IMAGES)
    assert rows(output) == [
        {**row, **said.get(name, nothing)} for name, row in zip(names, expected(archive), strict=True)
    ]


def test_a_manifest_is_replaced_whole_and_may_lie_in_its_own_folder(archive: str) -> None:
    output = join(archive, "night.parquet")
    build_one(archive, output)
    write_bytes(join(archive, "L3", "new.png"), b"123456")
    assert build_one(archive, output).written.rows == 7
    assert [row["uri"] for row in rows(output)] == [f"{archive}/{name}" for name in sorted([*IMAGES, "L3/new.png"])]


def test_no_images_is_an_error_and_writes_nothing(place: str) -> None:
    write_bytes(join(place, "archive", "notes.txt"), b"x")
    output = join(place, "night.parquet")
    write_bytes(output, b"the manifest of yesterday")
    for name, found in (("archive", "no images here"), ("absent", "there is nothing here, or it does not answer")):
        source = join(place, name)
        with pytest.raises(ManifestError, match=f"^{source}: {found}; give the folder or prefix"):
            build_one(source, output)
    assert read_bytes(output) == b"the manifest of yesterday"


@pytest.mark.parametrize("pattern", ["{colour}/*", "{line}/{line}/*", "{captured_at}/*", "{line", ""])
def test_a_wrong_pattern_is_an_error_and_writes_nothing(place: str, pattern: str) -> None:
    write_bytes(join(place, "a.png"), b"x")
    output = join(place, "night.parquet")
    with pytest.raises(ManifestError, match=r"^pattern "):
        build_one(place, output, pattern)
    assert not exists(output)


def test_an_absent_bucket_is_no_access(s3: str, tmp_path: Path) -> None:
    with pytest.raises(StorageAccessError, match="bucket does not exist"):
        build_one("s3://no-such-bucket/a", str(tmp_path / "m.parquet"))
    write_bytes("s3://bucket/some/a.png", b"1")
    with pytest.raises(StorageAccessError, match="bucket does not exist"):
        build_one("s3://bucket/some", "s3://no-such-bucket/m.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_unicode_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png"))).write_bytes(b"x")
    with pytest.raises(ManifestError, match="not UTF-8"):
        build_one(str(tmp_path / "in"), str(tmp_path / "m.parquet"))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_links_are_listed_once_and_those_in_a_circle_end(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(b"123")
    (folder / "sub" / "again").symlink_to("..")
    (folder / "dangling.png").symlink_to("absent.png")
    (folder / "link.png").symlink_to("sub/a.png")
    assert build_one(str(folder), str(tmp_path / "m.parquet")).written.rows <= 3
    names = [row["uri"].removeprefix(f"{folder}/") for row in rows(str(tmp_path / "m.parquet"))]
    assert names == sorted(set(names))
    assert {"sub/a.png", "link.png"} <= set(names) <= {"sub/a.png", "link.png", "dangling.png"}


def test_the_command_says_how_it_went(archive: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = join(place, "night.parquet")
    assert build_command(asked(archive, "{line}/{camera}/*/*"), output) == 0
    said = "".join(capsys.readouterr())
    assert f"6 images, 15 bytes: {output}" in said
    assert "2 paths do not match the pattern" in said
    assert build_command(asked(join(place, "absent")), output) == 2
    assert "there is nothing here" in "".join(capsys.readouterr())
    assert build_command(asked(archive, "{colour}"), output) == 2
    assert "unknown field 'colour'" in "".join(capsys.readouterr())
    assert build_command(asked("nosuch://a/b"), output) == 2
    assert "no storage for scheme 'nosuch'" in "".join(capsys.readouterr())


def test_the_command_without_access(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_command(asked("s3://no-such-bucket/a"), str(tmp_path / "m.parquet")) == 4
    assert "bucket does not exist" in "".join(capsys.readouterr())
