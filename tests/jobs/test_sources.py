"""Whatever ``--manifest`` may name, opened and frozen: the exact images, and errors that name the source."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.listing import listing
from jobs.manifest.sources import SourceOptions, digest_of, freeze_sources, is_listed, open_sources
from jobs.storage import download, write_bytes
from jobs.uris import is_local, join
from manifests.filters import Filters
from manifests.freeze import FrozenManifest, read_shard
from manifests.schema import ManifestError
from tests.manifests.inventories import TIME, delivery, entry

IMAGES = ("L1/c1/a.png", "L1/c1/b.png", "L1/c2/c.jpg", "L2/c1/d.png")


@pytest.fixture
def archive(place: str) -> str:
    for name in IMAGES:
        write_bytes(join(place, "archive", name), name.encode())
    write_bytes(join(place, "archive", "L1/c1/notes.txt"), b"no image")
    return join(place, "archive")


def frozen(
    uris: list[str], tmp_path: Path, filters: Filters | None = None, **options: Any
) -> tuple[FrozenManifest, list[dict[str, Any]]]:
    """The frozen manifest and its rows in the order of the sources."""
    count = len(list(tmp_path.glob("frozen-*")))
    local = tmp_path / f"frozen-{count}"
    local.mkdir()
    found = freeze_sources(uris, SourceOptions(**options), filters or Filters(), local)
    tables = [read_shard(local / "frozen" / shard.part, shard.row_group) for shard in found.shards]
    return found, pa.concat_tables(tables).sort_by("row").to_pylist()


def uris(rows: list[dict[str, Any]]) -> list[str]:
    return [row["uri"] for row in rows]


def manifest(place: str, name: str, images: tuple[str, ...], **further: Any) -> str:
    """A JSON Lines manifest of images by name, with further keys in every row."""
    lines = [json.dumps({"uri": image, **further}) for image in images]
    write_bytes(join(place, name), "\n".join(lines).encode())
    return join(place, name)


def test_a_prefix_with_what_its_paths_say(archive: str, tmp_path: Path) -> None:
    found, rows = frozen([archive], tmp_path, pattern="{line}/{camera}/*")
    assert uris(rows) == [f"{archive}/{name}" for name in IMAGES]
    assert [(row["line"], row["camera"]) for row in rows] == [("L1", "c1"), ("L1", "c1"), ("L1", "c2"), ("L2", "c1")]
    assert [row["size"] for row in rows] == [len(name) for name in IMAGES]
    assert found.left_out == {}
    assert uris(frozen([archive + "/"], tmp_path, format="prefix")[1]) == uris(rows)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("L1/c1/*.png", (0, 1)),
        ("*/c1/*", (0, 1, 3)),
        ("**/*.png", (0, 1, 3)),
        ("L?/c[2-9]/?.jpg", (2,)),
    ],
)
def test_a_glob(archive: str, tmp_path: Path, glob: str, expected: tuple[int, ...]) -> None:
    _, rows = frozen([f"{archive}/{glob}"], tmp_path)
    assert uris(rows) == [f"{archive}/{IMAGES[i]}" for i in expected]


def test_a_glob_with_fields(archive: str, tmp_path: Path) -> None:
    _, rows = frozen([f"{archive}/{{line}}/c1/*.png"], tmp_path)
    assert [row["line"] for row in rows] == ["L1", "L1", "L2"]
    with pytest.raises(ManifestError, match="is a pattern itself"):
        frozen([f"{archive}/*/c1/*.png"], tmp_path, pattern="{line}/*")


def test_a_name_with_wildcards_that_is_there_is_a_name(place: str, tmp_path: Path) -> None:
    name = manifest(place, "night[1]*.jsonl", ("a.png",))
    manifest(place, "night1x.jsonl", ("b.png",))
    assert uris(frozen([name], tmp_path)[1]) == ["a.png"]


def test_several_manifests_are_one(archive: str, place: str, tmp_path: Path) -> None:
    first = manifest(place, "one/m.jsonl", ("1.png", f"{place}/2.png"), shift=1)
    second = manifest(place, "two/m.jsonl", ("1.png", f"{place}/2.png"), order="A")
    found, rows = frozen([first, archive, second], tmp_path)
    # Relative ones belong to their own manifest; the same image again is a duplicate whichever lists it.
    listed = [f"{archive}/{name}" for name in IMAGES]
    assert uris(rows) == [f"{place}/one/1.png", f"{place}/2.png", *listed, f"{place}/two/1.png", f"{place}/2.png"]
    assert [row["problem_code"] for row in rows] == [None] * 7 + ["duplicate"]
    assert [(row["shift"], row["order"]) for row in rows] == [(1, None)] * 2 + [(None, None)] * 4 + [(None, "A")] * 2
    assert found.rows == 8
    assert frozen([second, archive, first], tmp_path)[0].source_sha256 != found.source_sha256


def test_relative_uris_can_be_named_after_the_folder_of_their_manifest(place: str, tmp_path: Path) -> None:
    night = manifest(place, "night/m.jsonl", ("1.png", "/x/2.png"))
    assert uris(frozen([night], tmp_path)[1]) == ["1.png", "/x/2.png"]
    assert uris(frozen([night], tmp_path, absolute=True)[1]) == [f"{place}/night/1.png", "/x/2.png"]


def test_who_tells_all_that_an_object_store_has(archive: str, place: str, tmp_path: Path) -> None:
    uri = manifest(place, "m.jsonl", ("/x/a.png",))

    def lists(*sources: str) -> bool:
        local = tmp_path / str(len(list(tmp_path.iterdir())))
        local.mkdir()
        return open_sources(sources, SourceOptions(), local).lists

    assert lists(archive) == lists(archive, f"{archive}/**") == (not is_local(place))
    assert not lists(uri) and not lists(archive, uri)


def test_a_glob_of_manifests_is_all_of_them(place: str, tmp_path: Path) -> None:
    for day in (1, 2, 10):
        manifest(place, f"lists/2026-03-{day:02d}.jsonl", (f"/x/{day}.png",))
    manifest(place, "lists/old/2026-03-03.jsonl", ("/x/3.png",))
    _, rows = frozen([join(place, "lists", "2026-*.jsonl")], tmp_path)
    assert uris(rows) == ["/x/1.png", "/x/2.png", "/x/10.png"]
    with pytest.raises(
        ManifestError, match=r"2027-\*\.jsonl: no manifest matches; below .*lists there is for instance"
    ):
        frozen([join(place, "lists", "2027-*.jsonl")], tmp_path)


def test_mapping_and_base(place: str, tmp_path: Path) -> None:
    write_bytes(join(place, "m.csv"), b"s3_key,ts,line\nline-1/a.png,2025-03-01T22:00Z,L1\n")
    options = {"columns": {"uri": "s3_key", "captured_at": "ts"}, "base": "s3://plant/images/"}
    _, (row,) = frozen([join(place, "m.csv")], tmp_path, **options)
    assert row["uri"] == "s3://plant/images/line-1/a.png"
    assert f"{row['captured_at']:%Y-%m-%d %H:%M}" == "2025-03-01 22:00"
    assert row["line"] == "L1"


def test_an_inventory_and_what_of_it_is_no_image(place: str, tmp_path: Path) -> None:
    below = "inventories/" if is_local(place) else place.removeprefix("s3://bucket/") + "/"
    objects = [entry("a.png"), entry("b.txt"), entry("old.png", IsLatest=False), entry("c d.png")]
    for key, data in delivery("CSV", [objects], above=f"{below}plant/all/").items():
        write_bytes(join(place, key.removeprefix(below)), data)
    found, rows = frozen([place], tmp_path)
    assert uris(rows) == ["s3://plant/a.png", "s3://plant/c d.png"]
    assert found.left_out == {"old_version": 1, "not_an_image": 1}
    assert uris(frozen([join(place, "plant", "all", TIME, "manifest.json")], tmp_path)[1]) == uris(rows)
    with pytest.raises(ManifestError, match="an S3 Inventory has columns of its own"):
        frozen([place], tmp_path, columns={"uri": "Key"})


def test_filters_and_counts(archive: str, tmp_path: Path) -> None:
    found, rows = frozen([archive], tmp_path, Filters(where="line = 'L1'", limit=2), pattern="{line}/**")
    assert uris(rows) == [f"{archive}/{name}" for name in IMAGES[:2]]
    assert found.left_out == {"where": 0, "limit": 1}


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
    [
        ("absent.parquet", None, {}, "there is no such manifest"),
        ("absent", None, {}, "there is nothing here, or it does not answer"),
        ("m.csv", b"key\nx\n", {}, "no uri column"),
        ("m.csv", b"uri\nx\n", {"pattern": "{line}/*"}, "a pattern is for a prefix or an S3 Inventory"),
        ("m.csv", b"uri\nx\n", {"columns": {"line": "Line"}}, "there is no column 'Line'"),
        ("m.parquet", b"PAR1", {}, ""),
    ],
)
def test_what_cannot_be_used_is_named_as_it_was_given(
    place: str, tmp_path: Path, name: str, content: bytes | None, options: dict[str, Any], says: str
) -> None:
    uri = join(place, name)
    if content is not None:
        write_bytes(uri, content)
    with pytest.raises(ManifestError) as failure:
        frozen([uri], tmp_path, **options)
    assert str(failure.value).startswith(f"{uri}: ")
    assert says in str(failure.value)
    assert str(tmp_path / "frozen") not in str(failure.value)


def test_a_manifest_may_have_a_name_without_a_suffix(place: str, tmp_path: Path) -> None:
    write_bytes(join(place, "night"), b"uri\n/x/1.png\n")
    assert uris(frozen([join(place, "night")], tmp_path)[1]) == ["/x/1.png"]
    below = join(place, "night", "images")  # a file cannot hold anything
    with pytest.raises(ManifestError, match=re.escape(f"{below}: there is nothing here")):
        frozen([below], tmp_path)


def test_a_damaged_row_of_several_names_its_manifest(place: str, tmp_path: Path) -> None:
    good = manifest(place, "good.jsonl", ("/x/1.png",))
    write_bytes(join(place, "bad.csv"), b"uri,captured_at\n/x/2.png,last night\n")
    _, rows = frozen([good, join(place, "bad.csv")], tmp_path)
    assert rows[1]["problem_code"] == "malformed_value"
    assert rows[1]["problem_message"].startswith(f"{place}/bad.csv: line 2: column captured_at")


def test_whether_a_source_is_as_it_was(archive: str, place: str, tmp_path: Path) -> None:
    uri = manifest(place, "m.jsonl", ("a.png",))
    found, _ = frozen([uri], tmp_path)
    download(uri, tmp_path / "m")
    assert found.source_sha256 == hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest()
    assert digest_of([uri], SourceOptions(), tmp_path) == found.source_sha256
    manifest(place, "m.jsonl", ("b.png",))
    assert digest_of([uri], SourceOptions(), tmp_path) not in (None, found.source_sha256)
    assert digest_of([archive], SourceOptions(), tmp_path) is None  # a listing is of its moment
    assert digest_of([join(place, "*.jsonl")], SourceOptions(), tmp_path) is None
    assert is_listed(archive, SourceOptions()) and not is_listed(uri, SourceOptions())


def test_a_listing_is_written_with_its_types(archive: str, tmp_path: Path) -> None:
    found, _ = frozen([archive], tmp_path)
    assert found.extras.field("size").type == pa.int64()
    assert str(found.extras.field("last_modified").type) == "timestamp[us, tz=UTC]"
    assert len(list(listing(archive))) == len(IMAGES) + 1
    assert pq.read_schema(tmp_path / "frozen-0" / "frozen" / found.parts[0]).names[:3] == ["row", "shard", "image_id"]
