"""Reading and comparing what an audit wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.results import VOLATILE


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
