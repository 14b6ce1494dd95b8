"""What is asked of shards that have rows from all over their manifest, with gaps where filters left rows out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit.commit import commit
from jobs.audit.exits import AuditError
from jobs.audit.forecast import SAMPLE, _sample
from jobs.audit.proofs import some_images
from jobs.audit.record import shard_name
from jobs.uris import join
from manifests.freeze import Filters, FrozenManifest, freeze_file
from tests.jobs.audit.runs import scored_run, write_shard

ROWS, PREFIXES = 4096, 8


def long_manifest(work: Path) -> FrozenManifest:
    """Frozen in 16 shards; of 512 rows each prefix, in the order of the keys."""
    uris = [f"s3://plant/{i * PREFIXES // ROWS}/{i:04d}.png" for i in range(ROWS)]
    pq.write_table(pa.table({"uri": uris}), work / "m.parquet")
    return freeze_file(work / "m.parquet", work / "frozen", shard_rows=256)


def test_a_dry_run_tries_images_from_all_over_the_manifest(tmp_path: Path) -> None:
    frozen = long_manifest(tmp_path)
    tried = [row["uri"] for row in _sample(frozen, tmp_path / "frozen")]
    assert len(tried) == len(set(tried)) == SAMPLE
    assert {uri.split("/")[3] for uri in tried} == {str(i) for i in range(PREFIXES)}


def test_proofs_are_looked_for_all_over_the_manifest(tmp_path: Path) -> None:
    frozen = long_manifest(tmp_path)
    tried = list(some_images([str(tmp_path / "frozen" / part) for part in frozen.parts]))
    assert len(tried) == len(set(tried)) == 16
    assert tried[0] == ("s3://plant/0/0000.png", None)
    assert {uri.split("/")[3] for uri, _ in tried} == {str(i) for i in range(PREFIXES)}
    assert len(list(some_images([str(tmp_path / "frozen" / frozen.parts[0])], most=3))) == 3


def test_the_table_does_not_depend_on_the_shards(tmp_path: Path) -> None:
    tables = []
    for rows in (3, 7, 100):
        (tmp_path / str(rows)).mkdir()
        manifest = pa.table({"uri": [f"{i}.png" for i in range(20)], "line": [f"L{i % 3}" for i in range(20)]})
        folder, record, frozen = scored_run(tmp_path / str(rows), manifest, rows)
        commit(folder, record, frozen, ours=lambda: None)
        tables.append(pq.read_table(folder.results, partitioning=None).drop_columns(["shard"]).to_pylist())
    assert [row["uri"] for row in tables[0]] == [f"{i}.png" for line in range(3) for i in range(line, 20, 3)]
    assert tables[0] == tables[1] == tables[2]


def test_a_run_with_gaps_balances_and_one_of_other_rows_does_not(tmp_path: Path) -> None:
    manifest = pa.table({"uri": [f"{i}.png" for i in range(10)], "n": list(range(10))})
    folder, record, frozen = scored_run(tmp_path, manifest, 3, Filters(where="n NOT IN (0, 4, 9)"))
    assert (frozen.rows, frozen.places, frozen.left_out) == (7, (1, 8, 32), {"where": 3})
    assert commit(folder, record, frozen, ours=lambda: None)["rows"] == 7

    uri = join(folder.shards, shard_name(1))  # of rows 2 and 6, of which one becomes the 4, which was left out
    table = pq.read_table(uri)
    assert table["row"].to_pylist() == [2, 6]
    pq.write_table(table.set_column(table.schema.get_field_index("row"), "row", pa.array([2, 4])), uri)
    with pytest.raises(AuditError, match=r"does not balance: .* = \(7, 7, 1, 8, 30\) and not \(7, 7, 1, 8, 32\)"):
        commit(folder, record, frozen, ours=lambda: None)


def test_a_run_of_an_older_version_is_committed(tmp_path: Path) -> None:
    """Its record has no places, and its rows are 0, 1, ..."""
    folder, record, frozen = scored_run(tmp_path, pa.table({"uri": [f"{i}.png" for i in range(10)]}), 4)
    older = frozen.to_dict()
    for key in ("places", "left_out"):
        del older[key]
    frozen = FrozenManifest.from_dict(json.loads(json.dumps(older)))
    assert commit(folder, record, frozen, ours=lambda: None)["rows"] == 10
    write_shard(folder, record, frozen, 0)
    for index in (1, 2):
        Path(join(folder.shards, shard_name(index))).write_bytes(Path(join(folder.shards, shard_name(0))).read_bytes())
    with pytest.raises(AuditError, match="does not balance"):
        commit(folder, record, frozen, ours=lambda: None)
