"""Inventories on a disk and in a bucket, as delivered and as copied: the right one, whole, and nothing else."""

from __future__ import annotations

import hashlib
import re
import subprocess
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.inventory import LocalInventory, data_uri, fetch, find, is_inventory
from jobs.listing import listing
from jobs.storage import copy, delete, read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import is_local, join
from manifests.readers.inventory import InventoryReader
from manifests.schema import ManifestError
from tests.manifests.inventories import FORMATS, OBJECTS, TIME, delivery, entry, manifest_json

PARTS = [OBJECTS[:3], OBJECTS[3:7], OBJECTS[7:]]
MANIFEST = f"plant/all/{TIME}/manifest.json"
URIS = [
    "s3://plant/line-1/cam-a/0001.png",
    "s3://plant/line-1/cam-a/0002.png",
    "s3://plant/line-2/cam-b/0003, again.png",
    "s3://plant/line-2/cam-b/0004.png",
    "s3://plant/line-2/cam-b/0005.png",
    "s3://plant/line-3/cam c/größe+100% =1.PNG",
]


def put(root: str, objects: dict[str, bytes]) -> None:
    for key, data in objects.items():
        write_bytes(join(root, key), data)


def key_of(root: str) -> str:
    """The key of a prefix in its bucket, with a slash at its end; of a folder, what was delivered there as well."""
    return "inventories/" if is_local(root) else root.removeprefix("s3://").partition("/")[2] + "/"


def deliver(root: str, form: str = "CSV", time: str = TIME, configuration: str = "plant/all") -> dict[str, bytes]:
    """An inventory of three data files as S3 delivers it below the root, by what lies below that."""
    above = key_of(root)
    objects = delivery(form, PARTS, time=time, above=f"{above}{configuration}/")
    below = {key.removeprefix(above): data for key, data in objects.items()}
    put(root, below)
    return below


def uris(found: LocalInventory) -> list[str]:
    batches = InventoryReader(found.inventory, found.files).batches()
    return [uri for batch in batches for uri in batch["uri"].to_pylist()]


@pytest.mark.parametrize("form", FORMATS)
def test_an_inventory_of_three_files_from_its_prefix(form: str, place: str, tmp_path: Path) -> None:
    below = deliver(place, form)
    (tmp_path / "local").mkdir()
    found = fetch(place + "/", tmp_path / "local")
    assert found.uri == join(place, MANIFEST)
    assert found.sha256 == hashlib.sha256(below[MANIFEST]).hexdigest()
    assert found.inventory.source_bucket == "plant"
    assert [path.read_bytes() for path in found.files] == [data for key, data in below.items() if "/data/" in key]
    assert sorted((tmp_path / "local").iterdir()) == list(found.files)
    assert uris(found) == URIS


@pytest.mark.parametrize("given", ["", "plant", "plant/all", f"plant/all/{TIME}", MANIFEST])
def test_every_way_to_name_it(given: str, place: str) -> None:
    deliver(place)
    uri = join(place, given) if given else place
    assert is_inventory(uri)
    assert find(uri) == join(place, MANIFEST)


def test_the_newest_and_that_of_a_date(place: str, tmp_path: Path) -> None:
    for time in ("2026-11-23T01-00Z", "2026-11-24T01-00Z", "2026-11-22T01-00Z", "2026-11-25T01-00Z"):
        deliver(place, time=time)
    delete(join(place, "plant/all/2026-11-25T01-00Z/manifest.checksum"))
    assert find(place) == join(place, "plant/all/2026-11-24T01-00Z/manifest.json")
    assert find(place, "2026-11-22") == join(place, "plant/all/2026-11-22T01-00Z/manifest.json")
    assert fetch(place, tmp_path, "2026-11-23").uri == join(place, "plant/all/2026-11-23T01-00Z/manifest.json")
    with pytest.raises(ManifestError, match=rf"^{place}: no finished inventory of 2026-11-25; the last ones are "):
        fetch(place, tmp_path, "2026-11-25")
    with pytest.raises(ManifestError, match=r"/2026-11-25T01-00Z/manifest.json: no manifest.checksum beside it"):
        fetch(join(place, "plant/all/2026-11-25T01-00Z"), tmp_path)
    with pytest.raises(ManifestError, match=r"manifest.json: is one inventory; a date chooses among those below"):
        find(join(place, "plant/all/2026-11-24T01-00Z"), "2026-11-24")


def test_several_configurations_are_refused_by_name(place: str) -> None:
    deliver(place)
    deliver(place, configuration="plant/weekly")
    with pytest.raises(
        ManifestError, match=rf"^{place}: there are several inventories here \(plant/all, plant/weekly\)"
    ):
        find(place)
    assert find(join(place, "plant/weekly")) == join(place, f"plant/weekly/{TIME}/manifest.json")


def test_what_is_not_there_is_said(place: str) -> None:
    write_bytes(join(place, "notes.txt"), b"x")
    for uri in (place, join(place, "absent")):
        assert not is_inventory(uri)
        with pytest.raises(ManifestError, match=rf"^{uri}: there is no inventory here; give the prefix"):
            find(uri)
    uri = join(place, "absent/manifest.json")
    assert not is_inventory(uri)
    with pytest.raises(ManifestError, match=rf"^{uri}: there is no such file; give the manifest.json of an inventory"):
        find(uri)


def test_a_changed_manifest_is_refused(place: str, tmp_path: Path) -> None:
    below = deliver(place)
    uri = join(place, MANIFEST)
    write_bytes(uri, below[MANIFEST].replace(b'"plant"', b'"plunt"'))
    with pytest.raises(ManifestError, match=rf"^{uri}: was changed or is not whole: MD5 .* manifest.checksum says"):
        fetch(place, tmp_path)
    assert list(tmp_path.glob("data*")) == []
    write_bytes(uri, below[MANIFEST][:100])
    assert is_inventory(uri)
    with pytest.raises(ManifestError, match=r"was changed or is not whole"):
        fetch(uri, tmp_path)


def test_a_changed_data_file_is_refused_by_name(place: str, tmp_path: Path) -> None:
    below = deliver(place)
    second = [key for key in below if "/data/" in key][1]
    data = below[second]
    write_bytes(join(place, second), data[:20] + bytes([data[20] ^ 1]) + data[21:])
    name = f"{key_of(place)}{second}"
    with pytest.raises(
        ManifestError, match=rf"^{join(place, MANIFEST)}: data file {name}: its MD5 is [0-9a-f]{{32}}, m"
    ):
        fetch(place, tmp_path)
    write_bytes(join(place, second), data[:-1])
    with pytest.raises(
        ManifestError, match=rf"data file {name}: has {len(data) - 1} bytes, manifest.json says {len(data)}"
    ):
        fetch(place, tmp_path)
    delete(join(place, second))
    with pytest.raises(ManifestError) as caught:
        fetch(place, tmp_path)
    assert str(caught.value) == (
        f"{join(place, MANIFEST)}: lists {name}, but there is no {join(place, second)}; "
        "copy the data files along with it, or take a newer inventory"
    )


@pytest.mark.parametrize("kept", ["", "plant/all/", "plant/"])
def test_a_copy_of_a_part_of_the_tree_is_read_where_it_lies(kept: str, place: str, tmp_path: Path) -> None:
    """What lies below ``kept`` of a delivery, copied to somewhere else; where it came from is gone."""
    for key, data in delivery("CSV", PARTS, above="far/away/plant/all/").items():
        write_bytes(join(place, "copy", key.removeprefix(f"far/away/{kept}")), data)
    assert uris(fetch(join(place, "copy"), tmp_path)) == URIS


def test_the_doubled_slash_of_a_prefix_that_ended_in_one(s3: str, tmp_path: Path) -> None:
    """S3 then delivers below two slashes, but the manifest names its files with one."""
    put("s3://bucket/doubled/", {f"/{key}": data for key, data in delivery("CSV", PARTS, above="plant/all/").items()})
    found = fetch("s3://bucket/doubled", tmp_path)
    assert found.uri == f"s3://bucket/doubled//{MANIFEST}"
    assert uris(found) == URIS


def test_a_manifest_does_not_lead_out_of_its_own_folder(s3: str, tmp_path: Path) -> None:
    """Neither by the destination bucket that it names, nor by keys of other folders: the files are looked for here."""
    secret = delivery("CSV", [OBJECTS], above="private/all/")
    put("s3://other", secret)
    put("s3://bucket", secret)
    (data_key,) = (key for key in secret if "/data/" in key)
    said = manifest_json("CSV", {data_key: secret[data_key]}, destinationBucket="arn:aws:s3:::other")
    put(
        "s3://bucket/mine/plant/all",
        {
            f"{TIME}/manifest.json": said,
            f"{TIME}/manifest.checksum": hashlib.md5(said).hexdigest().encode(),
        },
    )
    here = "s3://bucket/mine/plant/all/" + "/".join(data_key.split("/")[-2:])
    with pytest.raises(ManifestError, match=f"lists {data_key}, but there is no {here};"):
        fetch("s3://bucket/mine", tmp_path)
    copy(f"s3://bucket/{data_key}", here)
    assert uris(fetch("s3://bucket/mine", tmp_path)) == URIS


@pytest.mark.parametrize(
    ("manifest", "key", "expected"),
    [
        ("s3://b/p/src/all/T/manifest.json", "p/src/all/data/x.orc", "s3://b/p/src/all/data/x.orc"),
        ("s3://b/src/all/T/manifest.json", "src/all/data/x.orc", "s3://b/src/all/data/x.orc"),
        ("s3://b/src/all/T/manifest.json", "src/all/T/files/x.orc", "s3://b/src/all/T/files/x.orc"),
        ("s3://b/p/src/all/T/manifest.json", "p/src/all2/data/x.orc", "s3://b/p/src/all/data/x.orc"),
        ("s3://b/p/src/all/T/manifest.json", "q/src/all/data/x.orc", "s3://b/p/src/all/data/x.orc"),
        ("s3://b/p//src/all/T/manifest.json", "p/src/all/data/x.orc", "s3://b/p//src/all/data/x.orc"),
        ("s3://b/T/manifest.json", "p/src/all/data/x.orc", "s3://b/data/x.orc"),
        ("/copy/T/manifest.json", "p/src/all/data/x.orc", "/copy/data/x.orc"),
        ("/copy/T/manifest.json", "/etc/passwd", "/copy/etc/passwd"),
        ("/copy/T/manifest.json", "x.orc", "/copy/x.orc"),
    ],
)
def test_where_a_data_file_lies(manifest: str, key: str, expected: str) -> None:
    assert data_uri(manifest, key) == expected


def test_a_manifest_without_a_folder_says_so() -> None:
    with pytest.raises(
        ManifestError, match=r"^s3://b/manifest.json: the manifest.json of an inventory lies in a folder"
    ):
        data_uri("s3://b/manifest.json", "p/src/all/data/x.orc")


def test_other_manifests_and_images_are_no_inventory(place: str) -> None:
    put(place, {"rows/manifest.json": b'{"uri": "s3://a/b.png"}\n', "night.parquet": b"PAR1", "L1/a.png": b"x"})
    for given in ("rows", "rows/manifest.json", "night.parquet", "L1", "absent"):
        assert not is_inventory(join(place, given))
    # Images in the same bucket as their inventory: the prefix means the images.
    deliver(join(place, "inventories"))
    assert not is_inventory(place)
    deliver(join(place, "both"))
    assert is_inventory(join(place, "both"))
    write_bytes(join(place, "both/plant/L1/a.png"), b"x")
    assert not is_inventory(join(place, "both"))
    deliver(join(place, "deep/er"))
    assert is_inventory(join(place, "deep/er"))
    assert not is_inventory(join(place, "deep"))


def test_a_name_with_a_suffix_is_no_inventory_and_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    for name in ("read_bytes", "exists", "names_below"):
        monkeypatch.setattr(f"jobs.inventory.{name}", never)
    for uri in ("s3://bucket/night.parquet", "s3://bucket/a/night.csv.gz", "/data/night.jsonl", "https://host/a"):
        assert not is_inventory(uri)
    for uri in ("s3://my.bucket", "s3://bucket/v1.0", "/data/.hidden"):
        with pytest.raises(AssertionError):
            is_inventory(uri)


def test_an_absent_bucket_is_no_access(s3: str, tmp_path: Path) -> None:
    with pytest.raises(StorageAccessError, match="bucket does not exist"):
        fetch("s3://no-such-bucket/inventories", tmp_path)


def test_the_keys_of_a_real_bucket_come_back_from_a_csv_inventory(s3: str, tmp_path: Path) -> None:
    """What a server says of its own objects, written as S3 writes an inventory, names exactly these objects."""
    names = ["a b.png", "a+b.png", "100%.png", "%41.png", "größe.png", "日 本.png", "a,b\"c'.png", "&=?#.png", "~*.png"]
    for name in names:
        write_bytes(f"s3://bucket/keys/{name}", name.encode())
    objects = [
        entry(e.uri.removeprefix("s3://bucket/"), None, Bucket="bucket", Size=e.size, ETag=e.etag)
        for e in listing("s3://bucket/keys")
    ]
    put("s3://bucket/inv", delivery("CSV", [objects], above="bucket/all/"))
    found = uris(fetch("s3://bucket/inv", tmp_path))
    assert sorted(found) == sorted(f"s3://bucket/keys/{name}" for name in names)
    assert [read_bytes(uri).decode() for uri in found] == [uri.rpartition("/")[2] for uri in found]


def test_the_example_of_the_readme_pasted_into_a_shell(tmp_path: Path) -> None:
    readme = Path(__file__).parents[2] / "manifests" / "README.md"
    example = re.search(
        r"^    mkdir -p inventory/.*?manifest\.checksum\n", readme.read_text(), re.MULTILINE | re.DOTALL
    )
    assert example is not None
    subprocess.run(["bash", "-euc", textwrap.dedent(example[0])], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    uri = str(tmp_path / "inventory")
    assert is_inventory(uri)
    found = fetch(uri, tmp_path, "2026-11-24")
    assert found.inventory.created == datetime(2026, 11, 24, 1, tzinfo=UTC)
    assert uris(found) == ["s3://plant/line-1/0001.png", "s3://plant/line-1/0002, again.png"]
