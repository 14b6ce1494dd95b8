"""Shards that were damaged where they lie: told by name, and scored again by the same command."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit import commit as module
from jobs.audit import exits, shards
from jobs.audit.commit import commit
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord, shard_name
from jobs.audit.results import SCHEMA_VERSION, VERSION_KEY, result_schema
from jobs.audit.shards import missing_shards
from jobs.storage import read_bytes, upload, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.uris import join
from manifests.freeze import FrozenManifest
from tests.jobs.audit.runs import scored_run, write_shard
from tests.jobs.audit.tables import make_version_1

Run = tuple[RunFolder, RunRecord, FrozenManifest]


@pytest.fixture
def scored(tmp_path: Path) -> Run:
    manifest = pa.table({"uri": [f"{i}.png" for i in range(10)], "order": [f"A-{i}" for i in range(10)]})
    return scored_run(tmp_path, manifest, shard_rows=4)


def damage(uri: str, change: Callable[[bytearray, int], None]) -> None:
    """Change a Parquet file; told where its footer begins."""
    data = bytearray(read_bytes(uri))
    change(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    write_bytes(uri, bytes(data))


def test_whatever_is_done_to_a_footer_the_shard_is_missing(scored: Run) -> None:
    folder, record, frozen = scored
    uri = join(folder.shards, shard_name(1))
    assert missing_shards(folder, record, frozen) == ()
    whole = read_bytes(uri)

    def overwritten(data: bytearray, footer: int) -> None:
        data[footer:-8] = bytes(len(data) - 8 - footer)

    def nonsense(data: bytearray, footer: int) -> None:
        data[footer:-8] = random.Random(1).randbytes(len(data) - 8 - footer)

    def longer(data: bytearray, footer: int) -> None:
        data[-8:-4] = b"\xff\xff\xff\x7f"

    def shorter(data: bytearray, footer: int) -> None:
        data[-8:-4] = b"\x05\0\0\0"

    def cut(data: bytearray, footer: int) -> None:
        del data[footer + 9 :]

    def empty(data: bytearray, footer: int) -> None:
        data.clear()

    def other_end(data: bytearray, footer: int) -> None:
        data[-4:] = b"xxxx"

    for change in (overwritten, nonsense, longer, shorter, cut, empty, other_end):
        damage(uri, change)
        assert missing_shards(folder, record, frozen) == (1,), change.__name__
        write_bytes(uri, whole)
    damages = 0
    for seed in range(200):
        dice = random.Random(seed)

        def some_bytes(data: bytearray, footer: int, dice: random.Random = dice) -> None:
            for _ in range(5):
                data[dice.randrange(footer, len(data) - 8)] = dice.randrange(256)

        damage(uri, some_bytes)
        damages += missing_shards(folder, record, frozen) == (1,)
        write_bytes(uri, whole)
    assert damages > 100  # what Arrow does not notice is noticed by the commit


def test_a_footer_longer_than_what_is_read_at_once(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record, frozen = scored
    monkeypatch.setattr(shards, "FOOTER_BYTES", 64)
    assert missing_shards(folder, record, frozen) == ()


def test_a_storage_that_fails_is_no_damage(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record, frozen = scored

    def fail(uri: str) -> None:
        raise StorageAccessError(f"{uri}: storage does not answer")

    monkeypatch.setattr(shards, "reading", fail)
    with pytest.raises(StorageAccessError):
        missing_shards(folder, record, frozen)


def test_a_changed_byte_of_the_rows_is_told_and_the_shard_is_scored_again(scored: Run) -> None:
    folder, record, frozen = scored
    uri = join(folder.shards, shard_name(1))
    metadata = pq.read_metadata(uri)
    names = [metadata.row_group(0).column(i).path_in_schema for i in range(metadata.num_columns)]
    column = metadata.row_group(0).column(names.index("order"))

    end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size

    def change(data: bytearray, footer: int) -> None:
        data[end - 1] ^= 1  # of the last page's content

    damage(uri, change)
    assert missing_shards(folder, record, frozen) == ()  # its footer is whole
    with pytest.raises(AuditError, match=f"^{re.escape(uri)}: the shard is damaged .* the same command") as caught:
        commit(folder, record, frozen, ours=lambda: None)
    assert caught.value.code == exits.FAILED
    assert not Path(folder.results).exists()
    assert missing_shards(folder, record, frozen) == (1,)
    write_shard(folder, record, frozen, 1)
    assert commit(folder, record, frozen, ours=lambda: None)["rows"] == 10
    orders = pq.read_table(folder.results, partitioning=None)["order"].to_pylist()
    assert sorted(orders) == [f"A-{i}" for i in range(10)]


def test_a_storage_that_fails_in_the_commit_is_told_as_that(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record, frozen = scored

    def fail(uri: str) -> bytes:
        if uri.endswith(shard_name(1)):
            raise StorageAccessError(f"{uri}: storage does not answer")
        return read_bytes(uri)

    monkeypatch.setattr(module, "read_bytes", fail)
    with pytest.raises(StorageAccessError):
        commit(folder, record, frozen, ours=lambda: None)


def test_a_retry_removes_no_shard_that_it_would_not_score_again(scored: Run) -> None:
    folder, record, frozen = scored
    again = folder.retry(2)
    for part in frozen.parts:
        upload(Path(folder.manifest) / part, join(again.manifest, part))
    for shard in frozen.shards:
        write_shard(again, record, frozen, shard.index)
    first, second = (join(one.shards, shard_name(0)) for one in (folder, again))
    for uri, retrying, removed in (
        (first, True, False),
        (second, False, False),
        (second, True, True),
        (first, False, True),
    ):
        whole = read_bytes(uri)
        write_bytes(uri, whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
        with pytest.raises(AuditError, match=f"^{re.escape(uri)}: the shard is damaged") as caught:
            commit(folder, record, frozen, [(again, frozen)], ours=lambda: None, retrying=retrying)
        assert Path(uri).exists() is not removed
        assert ("the same command" in caught.value.message) is removed
        write_bytes(uri, whole)
    assert commit(folder, record, frozen, [(again, frozen)], ours=lambda: None)["rows"] == 10


def test_all_damaged_shards_are_removed_at_once_but_not_by_one_who_lost_the_run(scored: Run) -> None:
    folder, record, frozen = scored
    uris = [join(folder.shards, shard_name(shard.index)) for shard in frozen.shards]
    for uri in uris:
        write_bytes(uri, read_bytes(uri)[:4] + bytes(9999))

    def lost() -> None:
        raise AuditError(exits.LOCKED, "taken over")

    with pytest.raises(AuditError, match="taken over"):
        commit(folder, record, frozen, ours=lost)
    assert all(Path(uri).exists() for uri in uris)
    with pytest.raises(
        AuditError, match=rf"the shard is damaged \(.*\), and {len(uris) - 1} more; the files were removed"
    ):
        commit(folder, record, frozen, ours=lambda: None)
    assert not any(Path(uri).exists() for uri in uris)


def test_shards_of_the_first_schema_are_what_they_are(scored: Run) -> None:
    """Of a run that was begun before there was a column, and goes on after: they are read, and the column is null."""
    folder, record, frozen = scored
    paths = [Path(folder.shards) / shard_name(index) for index in (0, 2)]  # the one between is of today
    before = [make_version_1(path) for path in paths]
    assert missing_shards(folder, record, frozen) == ()
    assert commit(folder, record, frozen, ours=lambda: None)["rows"] == 10
    assert [path.read_bytes() for path in paths] == before
    found = pq.read_table(folder.results, partitioning=None)
    assert found.schema.remove_metadata() == result_schema(frozen.extras).remove_metadata()
    assert found["category_distance"].null_count == 10
    assert sorted(found["order"].to_pylist()) == [f"A-{i}" for i in range(10)]
    assert pq.read_metadata(folder.results).metadata[VERSION_KEY.encode()] == SCHEMA_VERSION.encode()

    again = folder.retry(2)
    for part in frozen.parts:
        upload(Path(folder.manifest) / part, join(again.manifest, part))
    for shard in frozen.shards:
        write_shard(again, record, frozen, shard.index)
    assert commit(folder, record, frozen, [(again, frozen)], ours=lambda: None, retrying=True)["rows"] == 10
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize(("lacking", "version"), [(["score"], "1"), ([], "2"), ([], "x")])
def test_a_shard_that_lacks_a_column_of_its_schema_is_damaged(scored: Run, lacking: list[str], version: str) -> None:
    folder, record, frozen = scored
    path = Path(folder.shards) / shard_name(1)
    make_version_1(path, *lacking, version=version)
    with pytest.raises(AuditError, match=f"^{re.escape(str(path))}: the shard is damaged"):
        commit(folder, record, frozen, ours=lambda: None)
    assert not path.exists()


def test_a_manifest_with_a_column_that_the_results_have_by_now(scored: Run) -> None:
    folder, record, frozen = scored
    older = replace(frozen, extras=pa.schema([*frozen.extras, pa.field("category_distance", pa.string())]))
    with pytest.raises(AuditError, match="has columns that the results have by now: category_distance") as caught:
        commit(folder, record, older, ours=lambda: None)
    assert caught.value.code == exits.USAGE
    assert missing_shards(folder, record, frozen) == ()
