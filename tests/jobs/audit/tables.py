"""Reading and comparing what an audit wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.results import VERSION_KEY, VOLATILE
from jobs.audit.write import parquet_bytes


def published(output: Path, run_date: str = "2026-01-02", name: str = "audit") -> pa.Table:
    """The published table of a run."""
    return pq.read_table(output / "results" / f"run_date={run_date}" / f"{name}.parquet", partitioning=None)


def stable(table: pa.Table) -> list[dict[str, Any]]:
    """Rows without what a disturbed run may differ in, and without the output's own address."""
    paths = ("heatmap_path", "overlay_path")
    rows = table.drop_columns(list(VOLATILE)).to_pylist()
    for row in rows:
        row.update({name: row[name] and "/".join(row[name].split("/")[-4:]) for name in paths})
    return rows


def make_version_1(path: Path, *lacking: str, version: str = "1") -> bytes:
    """Make of a result file one of the schema's first version; returns its bytes. lacking: further columns it loses."""
    table = pq.read_table(path, partitioning=None).drop_columns(["category_distance", *lacking])
    footer = {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}
    own = {key: value for key, value in footer.items() if key.startswith("line_audit.")}
    path.write_bytes(parquet_bytes(table, own | {VERSION_KEY: version}))
    return path.read_bytes()
