"""Writing some text, table or rows as a manifest, and getting its rows back, frozen or just read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests.freeze import FrozenManifest, freeze_file, read_shard
from manifests.readers import ReadOptions, open_manifest


class Frozen:
    """A frozen manifest with its rows in memory, in the order of the source."""

    def __init__(self, folder: Path, frozen: FrozenManifest):
        self.frozen, self.folder = frozen, folder
        tables = [read_shard(folder / shard.part, shard.row_group) for shard in frozen.shards]
        table = pa.concat_tables(tables).combine_chunks()
        self.table = table.take(pc.array_sort_indices(table["row"]))
        self.rows: list[dict[str, Any]] = self.table.to_pylist()

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.table[name].to_pylist()
        return values


Freezer = Callable[..., Frozen]


def freeze_content(root: Path, content: bytes | str | pa.Table, name: str, **settings: Any) -> Frozen:
    """Write the content as a manifest of that name below root, and freeze it."""
    source = root / name
    if isinstance(content, pa.Table):
        pq.write_table(content, source)
    else:
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Frozen(root / "frozen", freeze_file(source, root / "frozen", **settings))


@pytest.fixture
def frozen_from(tmp_path: Path) -> Freezer:
    """freeze_content in a new folder for every call."""
    count = iter(range(1000))

    def run(content: bytes | str | pa.Table, name: str, **settings: Any) -> Frozen:
        root = tmp_path / str(next(count))
        root.mkdir()
        return freeze_content(root, content, name, **settings)

    return run


TABLE_FORMATS = ("csv", "jsonl", "parquet")


def write_rows(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """Rows with the same keys, all text, as a manifest of that format."""
    path = folder / f"tonight.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(text.getvalue().encode())
    return path


def read_rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    """The rows of a manifest of any format. options: those of ReadOptions."""
    reader = open_manifest(path, None, ReadOptions(**options))
    return [row for batch in reader.batches() for row in batch.to_pylist()]
