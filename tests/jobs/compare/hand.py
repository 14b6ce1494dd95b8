"""Committed runs whose rows are written by hand."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.results import file_metadata, result_schema
from jobs.audit.write import parquet_bytes
from jobs.storage import write_bytes
from tests.nights import EXTRAS

THRESHOLD = 2.0
Row = dict[str, Any]


def image_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def row(name: str, margin: float | None, decision: str | None = None, **values: Any) -> Row:
    """A scored row: anomalous from the threshold on, unless a decision is given. margin None: without a score."""
    score = None if margin is None else margin * THRESHOLD
    threshold = None if margin is None else THRESHOLD
    return {
        "image_id": image_id(name), "uri": f"s3://plant/{name}.png", "line": "L1", "camera": "top",
        "declared_category": "bottle", "status": "scored", "attempts": 1, "category": "bottle", "score": score,
        "threshold": threshold, "margin": margin,
        "decision": decision or ("review" if margin is None else "anomalous" if margin >= 1 else "normal"),
        "shard": 0, "bundle_digest": "b" * 64, "scored_at": datetime(2026, 3, 1, tzinfo=UTC),
    } | values  # fmt: skip


def failed(name: str, stage: str = "fetch", code: str = "missing_object", **values: Any) -> Row:
    outcome = {"status": "failed", "error_stage": stage, "error_code": code, "category": None}
    return row(name, None, "failed", **(outcome | values))


def publish(folder: RunFolder, rows: list[Row], uri: str | None = None) -> None:
    """Put rows in the place of a run's published table, or at a URI."""
    schema = result_schema(EXTRAS)
    filled = [dict.fromkeys(schema.names) | {"run_id": folder.run_id} | one for one in rows]
    metadata = file_metadata(folder.run_id, "f" * 64, "b" * 64)
    write_bytes(uri or folder.results, parquet_bytes(pa.Table.from_pylist(filled, schema=schema), metadata))


def by_hand(output: str, name: str, rows: list[Row], run_date: str = "2026-03-01") -> str:
    """The folder of a committed run with these rows."""
    folder = RunFolder(output, run_date, name)
    settings = {"heatmaps": "anomalous", "min_confidence": 0.5, "trust_declared": False}
    parts = {"manifest": "m" * 64, "bundle": "b" * 64, "precision": "bfloat16", "settings": settings, "code": {}}
    record = RunRecord(
        run_id=folder.run_id, state="committed", manifest="s3://plant/manifest.parquet", source_sha256="5" * 64,
        bundle="bundle", device="cpu", fingerprint="f" * 64, parts=parts, frozen={"rows": len(rows)},
        results=folder.results, created_at="2026-03-01T01:00:00+00:00", exit_code=0,
    )  # fmt: skip
    publish(folder, rows)
    record.save(folder)
    write_bytes(folder.success, b"")
    return folder.uri
