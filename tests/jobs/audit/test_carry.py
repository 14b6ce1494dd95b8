"""Further columns of a manifest: what comes through the commit unchanged, and what is refused before the night."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit import carry, exits
from jobs.audit.commit import commit
from jobs.audit.config import AuditConfig
from jobs.audit.exits import AuditError
from jobs.audit.plan import freeze_manifest
from tests.jobs.audit.runs import scored_run

ROWS = 6
TEXTS = pa.map_(pa.string(), pa.int32())
ONCE, TWICE = [("a", 1), ("b", 2)], [("a", 1), ("a", 2)]
UUIDS = pa.ExtensionArray.from_storage(
    pa.uuid(), pa.array([uuid.UUID(int=i).bytes for i in range(ROWS)], pa.binary(16))
)


def column(values: list[object], kind: pa.DataType) -> pa.Array:
    """The values at the end of a column of nulls."""
    return pa.array([None] * (ROWS - len(values)) + values, kind)


def nameless() -> pa.Array:
    return pa.StructArray.from_arrays([pa.array(range(ROWS))], names=[""])


CARRIED = {
    "map": column([ONCE, []], TEXTS),
    "list of maps": column([[ONCE, None], []], pa.list_(TEXTS)),
    "struct": column(
        [{"x": 1, "y": [float("nan"), -0.0]}], pa.struct([("x", pa.int8()), ("y", pa.list_(pa.float32()))])
    ),
    "fixed list": column([[1, 2]], pa.list_(pa.int64(), 2)),
    "large list": column([["a", None]], pa.large_list(pa.large_string())),
    "bytes": column([b"\xff\0", b""], pa.binary()),
    "four bytes": column([b"abcd"], pa.binary(4)),
    "decimal": column([10**37], pa.decimal128(38, 0)),
    "date": column([-719_162], pa.date32()),
    "time": column([86_399_999_999_999], pa.time64("ns")),
    "ns": column([2**62 + 1], pa.timestamp("ns")),
    "zone": column([2**60], pa.timestamp("us", "Europe/Berlin")),
    "uint64": column([2**64 - 1], pa.uint64()),
    "nan": column([float("nan"), -0.0], pa.float64()),
    "json": pa.ExtensionArray.from_storage(pa.json_(), column(['{"a":  1}', "not json"], pa.string())),
    "null": pa.nulls(ROWS),
}
REFUSED = {
    "a map with a key twice": column([TWICE, ONCE], TEXTS),
    "such a map in a list": column([[ONCE], [TWICE]], pa.list_(TEXTS)),
    "such a map in a struct": column([{"m": TWICE}], pa.struct([("m", TEXTS)])),
    "a UUID": UUIDS,
    "a UUID in a struct": pa.StructArray.from_arrays([UUIDS], names=["id"]),
    "a field without a name": nameless(),
    "such a field in a list": pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), nameless()),
    "a half": column([1.5], pa.float16()),
    "a duration": column([5], pa.duration("s")),
    "milliseconds with a zone": column([5], pa.timestamp("ms", "UTC")),
}


def manifest(columns: dict[str, pa.Array]) -> pa.Table:
    return pa.table({"uri": [f"{i}.png" for i in range(ROWS)], **columns})


def frozen_for(path: Path) -> None:
    """Freeze a manifest as an audit does before it starts."""
    work = path.parent / "work"
    work.mkdir()
    freeze_manifest(AuditConfig(manifest=str(path), bundle="b", output="o", shard_rows=2), work)


def test_what_is_accepted_is_published_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "BATCH_ROWS", 4)
    folder, record, frozen = scored_run(tmp_path, manifest(CARRIED), shard_rows=2)
    frozen_for(tmp_path / "manifest.parquet")
    commit(folder, record, frozen, ours=lambda: None)
    published = pq.read_table(folder.results, partitioning=None)
    for name, values in CARRIED.items():
        back = published[name].combine_chunks()
        assert back.type == values.type
        assert back.equals(values) or repr(back.to_pylist()) == repr(values.to_pylist()), name  # NaN equals nothing


@pytest.mark.parametrize("values", REFUSED.values(), ids=list(REFUSED))
def test_what_the_commit_would_change_is_refused_first(
    values: pa.Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "BATCH_ROWS", 4)
    pq.write_table(manifest({"good": pa.array(range(ROWS)), "part id": values}), tmp_path / "m.parquet")
    with pytest.raises(
        AuditError, match=r"column 'part id' of type .* cannot be carried .*: cast it, .* drop it$"
    ) as no:
        frozen_for(tmp_path / "m.parquet")
    assert no.value.code == exits.USAGE
    assert no.value.message.startswith(str(tmp_path / "m.parquet"))


def test_values_of_plain_columns_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest of a million rows has them, and would wait."""
    read: list[str] = []
    real = carry._column
    monkeypatch.setattr(carry, "_column", lambda frozen, parts, name: read.append(name) or real(frozen, parts, name))
    plain = {name: CARRIED[name] for name in ("ns", "zone", "uint64", "nan", "null")}
    plain |= {"text": pa.array(["x"] * ROWS), "bool": pa.array([True] * ROWS)}
    pq.write_table(manifest(plain | {"map": CARRIED["map"]}), tmp_path / "m.parquet")
    frozen_for(tmp_path / "m.parquet")
    assert read == ["map"]
