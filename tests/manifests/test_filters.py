"""Filters: what each leaves out and counts, and that every row is kept or left out, whatever the batches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import filters as module
from manifests.filters import Filters, Since, parse_sample
from manifests.freeze import freeze
from manifests.schema import TIME, ManifestError, batch_schema, image_id, row_id
from tests.manifests.conftest import Freezer, Frozen

NIGHT = datetime(2025, 3, 1, 22, tzinfo=UTC)
EXTRAS = pa.schema([("n", pa.int64()), ("last_modified", TIME)])


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.5%", 0.005), ("100%", 1.0), (" 12.50 % ", 0.125), (".5%", 0.005)]
)
def test_shares(text: str, share: float) -> None:
    assert parse_sample(text) == share


@pytest.mark.parametrize(
    "text", ["0%", "0.0%", "100.1%", "101%", "-1%", "1", "0.01", "%", "nan%", "NaN", "inf%", "1e1%", "1,5%", "٣%", ""]
)
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no share above 0% and up to 100%, such as 1% or 0\.5%"):
        parse_sample(text)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_shares_that_leave_nothing(share: float) -> None:
    with pytest.raises(ValueError, match="sample must be above 0 and at most 1"):
        Filters(sample=share)


def test_a_cut_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        Since(datetime(2025, 3, 1))


def numbered(count: int, **columns: pa.Array) -> pa.Table:
    return pa.table({"uri": [f"s3://plant/{i}.png" for i in range(count)], "n": list(range(count)), **columns})


def test_an_image_is_in_the_sample_whatever_manifest_it_comes_from(frozen_from: Freezer) -> None:
    whole = numbered(2000)
    first = frozen_from(whole, "m.parquet", filters=Filters(sample=0.1))
    assert first.frozen.left_out == {"sample": 2000 - first.frozen.rows}
    assert 150 < first.frozen.rows < 250
    other = frozen_from(whole.take(list(range(1999, 999, -1))), "o.parquet", filters=Filters(sample=0.1))
    assert sorted(other.column("n")) == [n for n in first.column("n") if n >= 1000]
    more = frozen_from(whole, "m.parquet", filters=Filters(sample=0.2))
    assert set(first.column("n")) < set(more.column("n"))
    assert frozen_from(whole, "m.parquet", filters=Filters(sample=1.0)).frozen.rows == 2000
    below = [i for i in range(2000) if int(image_id(f"s3://plant/{i}.png", None, None)[:8], 16) < 0.1 * 2**32]
    assert first.column("n") == below


def test_rows_keep_their_place_in_the_source(frozen_from: Freezer) -> None:
    text = "uri,line\na,L1\nb,L2\nc\nb,L2\nd,L1\nb,L2\n"
    found = frozen_from(text, "m.csv", filters=Filters(where="line = 'L2'"), shard_rows=2)
    assert (found.column("row"), found.column("uri")) == ([1, 2, 3, 5], ["b", "c", "b", "b"])
    messages = found.column("problem_message")
    assert messages[1].startswith("line 4: ") and messages[2:] == ["same uri and version as row 1"] * 2
    assert (found.frozen.left_out, found.frozen.places) == ({"where": 2}, (1, 5, 11))


def times(*hours: int | None) -> pa.Array:
    return pa.array([None if hour is None else NIGHT + timedelta(hours=hour) for hour in hours], TIME)


def test_what_is_new_since_a_time(frozen_from: Freezer, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image_id": [image_id(f"s3://plant/{i}.png", None, None) for i in (1, 3, 9)]}), tmp_path / "s"
    )
    table = numbered(5, captured_at=times(-1, 0, 1, 2, None), last_modified=times(0, 0, -1, 3, None))
    since = Filters(since=Since(NIGHT))
    assert frozen_from(table, "m.parquet", filters=since).column("n") == [0, 1, 3, 4]
    captured = frozen_from(table.drop_columns(["last_modified"]), "m.parquet", filters=since)
    assert captured.column("n") == [1, 2, 3, 4]
    seen = frozen_from(table, "m.parquet", filters=Filters(since=Since(NIGHT, tmp_path / "s")))
    assert (seen.column("n"), seen.frozen.left_out) == ([0, 4], {"since": 3})
    ever = Filters(since=Since(None, tmp_path / "s"))
    assert frozen_from(table, "m.parquet", filters=ever).column("n") == [0, 2, 4]
    with pytest.raises(ManifestError, match=r"of 1 rows were left out 1 by since the runs before$"):
        frozen_from(table.slice(1, 1), "m.parquet", filters=ever)


def test_rows_with_a_problem_are_never_old(frozen_from: Freezer, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": [image_id("a", None, None)]}), tmp_path / "s")
    text = "uri,captured_at\na,2025-03-01T23:00Z\na,noon\n,2020-01-01\nb,2020-01-01\n"
    found = frozen_from(text, "m.csv", filters=Filters(since=Since(NIGHT, tmp_path / "s")))
    assert found.column("problem_code") == ["malformed_value", "empty_uri"]
    assert found.frozen.left_out == {"since": 2}


def test_a_file_of_the_seen_without_their_names_is_refused(frozen_from: Freezer, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "s")
    with pytest.raises(ManifestError, match=r"/s: no column image_id; name a table of results"):
        frozen_from(numbered(1), "m.parquet", filters=Filters(since=Since(NIGHT, tmp_path / "s")))


@pytest.mark.parametrize(("limit", "more"), [(1, 1), (4, 1), (5, 0), (6, 0)])
def test_a_limit_says_whether_there_was_more(frozen_from: Freezer, limit: int, more: int) -> None:
    found = frozen_from(numbered(5), "m.parquet", filters=Filters(limit=limit))
    assert (found.column("n"), found.frozen.left_out) == (list(range(5))[:limit], {"limit": more})


def test_the_limit_is_of_what_the_others_leave_and_stops_the_reading(frozen_from: Freezer) -> None:
    found = frozen_from(numbered(100_000), "m.parquet", filters=Filters(where="n % 10 = 3", limit=3))
    assert (found.column("n"), found.frozen.left_out) == ([3, 13, 23], {"where": 21, "limit": 1})


def test_when_nothing_is_left_the_filters_are_told(frozen_from: Freezer, tmp_path: Path) -> None:
    everything = Filters(where="n >= 10", since=Since(NIGHT), sample=1e-9, limit=3)
    table = numbered(30, captured_at=times(*[-1 if i < 12 else 1 for i in range(30)]))
    with pytest.raises(
        ManifestError,
        match=r"m\.parquet: no row is left; of 30 rows were left out 10 by where 'n >= 10', "
        r"2 by since 2025-03-01T22:00:00Z, 18 by the sample of 1e-09$",
    ):
        frozen_from(table, "m.parquet", filters=everything)
    with pytest.raises(ManifestError, match="the manifest has no rows"):
        frozen_from(numbered(0), "m.parquet", filters=everything)


@dataclass
class Listed:
    """A reader of batches that are there."""

    found: list[pa.RecordBatch]
    schema_extras: pa.Schema = EXTRAS

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield from self.found


def either(*parts: bool | None) -> bool | None:
    return True if True in parts else None if None in parts else False


CONDITIONS: dict[str, Callable[[dict[str, Any]], bool | None]] = {
    "line = 'a'": lambda row: None if row["line"] is None else row["line"] == "a",
    "n > 2 OR line = 'b'": lambda row: either(
        None if row["n"] is None else row["n"] > 2, None if row["line"] is None else row["line"] == "b"
    ),
    "uri IS NOT NULL": lambda row: row["uri"] is not None,
}
ROW = st.fixed_dictionaries(
    {
        "uri": st.sampled_from(["u1", "u2", "u3", "u4", "u5", None]),
        "line": st.sampled_from(["a", "b", None]),
        "n": st.one_of(st.none(), st.integers(0, 5)),
        "last_modified": st.sampled_from([None, NIGHT - timedelta(hours=1), NIGHT, NIGHT + timedelta(hours=1)]),
        "problem_code": st.sampled_from([None, None, None, "malformed_value", "malformed_row"]),
    }
).map(lambda row: row if row["uri"] else row | {"problem_code": "empty_uri"})


def expected(rows: list[dict[str, Any]], asked: Filters, seen: set[str] | None) -> tuple[list[int], dict[str, int]]:
    """The rows that are kept, and what is left out, one row after the other."""
    kept: list[int] = []
    out = {name: 0 for name in ("where", "since", "sample", "limit") if getattr(asked, name) is not None}
    for number, row in enumerate(rows):
        if len(kept) == asked.limit:
            out["limit"] = 1
            break
        code = row["problem_code"]
        known = row["uri"] and code in (None, "malformed_value")
        name = image_id(row["uri"], None, None) if known else row_id(number, (row["uri"], None, None, code, None))
        held = CONDITIONS[asked.where](row) if asked.where else True
        time = row["last_modified"]
        old = time is not None and asked.since and asked.since.cut and time < asked.since.cut
        if not (held or (held is None and code)):
            out["where"] += 1
        elif asked.since and not code and (old or name in (seen or ())):
            out["since"] += 1
        elif asked.sample and int(name[:8], 16) >= asked.sample * 2**32:
            out["sample"] += 1
        else:
            kept.append(number)
    return kept, out


@settings(max_examples=50, deadline=None)
@given(data=st.data(), rows=st.lists(ROW, min_size=1, max_size=40))
def test_every_row_is_kept_or_left_out_and_in_one_shard(data: st.DataObject, rows: list[dict[str, Any]]) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4), "cuts"))
    seen = data.draw(st.one_of(st.none(), st.sets(st.sampled_from(["u1", "u2", "u9"]))), "seen")
    names = None if seen is None else {image_id(uri, None, None) for uri in seen}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        if names is not None:
            pq.write_table(pa.table({"image_id": pa.array(sorted(names), pa.string())}), root / "seen")
        asked = Filters(
            where=data.draw(st.sampled_from([None, *CONDITIONS]), "where"),
            since=data.draw(
                st.sampled_from(
                    [None, *(Since(cut, root / "seen" if names is not None else None) for cut in (NIGHT, None))]
                )
            ),
            sample=data.draw(st.sampled_from([None, 0.3, 0.9]), "sample"),
            limit=data.draw(st.sampled_from([None, 1, 3, 8]), "limit"),
        )
        patch.setattr(module, "_GROUP_BYTES", data.draw(st.sampled_from([1, 300, 2**20]), "group"))
        bounds = [0, *cuts, len(rows)]
        batches = [pa.RecordBatch.from_pylist(rows[start:end], batch_schema(EXTRAS)) for start, end in pairwise(bounds)]
        kept, left_out = expected(rows, asked, names)
        each = data.draw(st.integers(1, 9), "shard rows")
        if not kept:
            with pytest.raises(ManifestError, match=f"m: no row is left; of {len(rows)} rows"):
                freeze(Listed(batches), root / "f", name="m", source_sha256="0", filters=asked, shard_rows=each)
            return
        frozen = freeze(Listed(batches), root / "f", name="m", source_sha256="0", filters=asked, shard_rows=each)
        found = Frozen(root / "f", frozen)
    assert (found.column("row"), frozen.left_out) == (kept, left_out)
    shards = -(-len(kept) // each)
    assert found.column("shard") == [k % shards for k in range(len(kept))]
    assert frozen.places == (kept[0], kept[-1], sum(kept))
    assert [row["n"] for row in found.rows] == [rows[i]["n"] for i in kept]
