"""Relative uris, put behind a base in every format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.readers import ReadOptions
from manifests.schema import ManifestError
from tests.manifests.conftest import TABLE_FORMATS, read_rows, write_rows

BASES = [
    ("s3://bucket", "s3://bucket/"),
    ("s3://bucket/", "s3://bucket/"),
    ("s3://bucket/a b//", "s3://bucket/a b/"),
    ("/data/", "/data/"),
    ("/", "/"),
    ("images", "images/"),
]
STAYS = ["s3://other/x.png", "S3://other/x.png", "file:///x.png", "http+x-1.0://h/x", "/x.png", "//x/y.png"]
MOVES = ["x.png", "l/x.png", "./x.png", "../x.png", "a/../../x.png", "a:b.png", "c/d://e.png", "é.png", " x.png"]


@pytest.mark.parametrize("kind", TABLE_FORMATS)
@pytest.mark.parametrize(("base", "before"), BASES)
def test_relative_uris_are_put_behind_the_base(tmp_path: Path, kind: str, base: str, before: str) -> None:
    path = write_rows(tmp_path, kind, [{"uri": uri} for uri in [*STAYS, *MOVES]])
    assert [row["uri"] for row in read_rows(path, base=base)] == [*STAYS, *(before + uri for uri in MOVES)]
    assert [row["uri"] for row in read_rows(path)] == [*STAYS, *MOVES]


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_a_row_without_a_uri_stays_one(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind, [{"uri": uri, "x": "1"} for uri in ["", "  ", "\u3000", "a\0b", "c" * 4095]])
    codes = ["empty_uri"] * 3 + ["control_character", "uri_too_long"]
    rows = read_rows(path, base="s3://b")
    assert [row["problem_code"] for row in rows] == codes
    assert [row["uri"] for row in rows[:3]] == ["", "  ", "\u3000"]
    assert rows[4]["uri"] == "s3://b/" + "c" * (4096 - 7)


def test_null_uris_and_texts_of_every_kind_stand_behind_the_base(tmp_path: Path) -> None:
    for uris in (
        pa.array(["a", None], pa.large_string()),
        pa.array([b"a", None]),
        pa.array(["a", None]).dictionary_encode(),
    ):
        pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
        assert [row["uri"] for row in read_rows(tmp_path / "m.parquet", base="s3://b/")] == ["s3://b/a", None]


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("", "names no bucket and no folder"),
        ("  ", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3:", "names no bucket"),
        ("s3:///", "names no bucket"),
        ("s3://key:MARKEDsecret@bucket/", r"\*\*\*@bucket.*credentials in an address"),
    ],
)
def test_a_base_that_names_no_place_is_refused(base: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says) as error:
        ReadOptions(base=base)
    assert "MARKED" not in str(error.value)


@settings(max_examples=100, deadline=None)
@given(uris=st.lists(st.text(st.sampled_from("ab:/. +-é"), max_size=8), min_size=1, max_size=20))
def test_any_uri_is_absolute_behind_a_base(uris: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder), "parquet", [{"uri": uri} for uri in uris])
        for uri, row in zip(uris, read_rows(path, base="s3://b"), strict=True):
            scheme = uri.partition("://")[0] if "://" in uri else ""
            whole = uri.startswith("/") or (scheme != "" and all(c in "ab.+-" for c in scheme))
            assert row["uri"] == (uri if whole or not uri.strip() else f"s3://b/{uri}")
