"""Committed nights of made-up results, as an audit publishes them: for what reads results and needs no model.

``write_night`` draws rows of three categories, four lines and two cameras each: scores by a gamma distribution around
the threshold that 1 % of them exceed, a share of failed rows, some that need review. Pictures are only written if asked
for.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import gamma

from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from anomaly_core.preprocess import Preprocessing
from jobs.audit.commit import BATCH_ROWS, count_rows, database
from jobs.audit.record import FileDigest, Published, RunFolder, RunRecord
from jobs.audit.results import file_metadata, result_schema
from jobs.audit.review import write_queue
from jobs.storage import scratch, upload, write_bytes
from jobs.uris import join

CATEGORIES = ("bottle", "pill", "screw")
LINES = ("L1", "L2", "L3", "L4")
SHAPE = 4.0
SCALES = {"bottle": 0.02, "pill": 0.01, "screw": 0.03}
THRESHOLDS = {name: float(gamma.ppf(0.99, SHAPE, scale=scale)) for name, scale in SCALES.items()}
EXTRAS = pa.schema([pa.field("batch", pa.string())])
FAILURES = (("fetch", "missing_object"), ("decode", "truncated_image"), ("fetch", "throttled"))


@dataclass(frozen=True)
class Night:
    """What is drawn. louder: by line, what its scores are multiplied with. failed, unknown, doubtful: shares of rows
    that failed, that are of no known product, that are routed otherwise than declared and so in review. pictures: so
    many of the worst rows have heatmap and overlay. images: URI below which the images would be; they are not written.
    more: further columns of the manifest, each with the one value that all rows have."""

    run_date: str
    name: str = "audit"
    rows: int = 1000
    seed: int = 0
    louder: dict[str, float] = field(default_factory=dict)
    failed: float = 0.004
    unknown: float = 0.002
    doubtful: float = 0.003
    pictures: int = 0
    images: str = "s3://plant"
    bundle: str = "bundle"
    bundle_digest: str = "b" * 64
    thresholds: dict[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def extras(self) -> pa.Schema:
        """The further columns of the manifest."""
        return pa.schema([*EXTRAS, *(pa.field(name, pa.scalar(value).type) for name, value in self.more.items())])


def calibration_scores(category: str, count: int = 200, seed: int = 7) -> list[float]:
    """What a bundle of these categories would hold: scores of normal images that its autoencoders have not seen."""
    drawn = np.random.default_rng(seed).gamma(SHAPE, SCALES[category], count)
    return sorted(float(score) for score in drawn)


def write_night(output: str, night: Night) -> tuple[RunFolder, RunRecord]:
    """Write run.json, the published table, the review queue and _SUCCESS of a committed run."""
    folder = RunFolder(output, night.run_date, night.name)
    table = night_table(folder, night)
    with scratch() as local:
        connection = database(local)
        connection.register("drawn", table)
        connection.execute("CREATE TABLE rows AS SELECT * FROM drawn")
        counts = count_rows(connection)
        write_queue(connection, folder.run_id, 1, local / "queue.csv")
        metadata = file_metadata(folder.run_id, "f" * 64, night.bundle_digest)
        with pq.ParquetWriter(local / "table", table.schema, compression="zstd", write_statistics=True) as writer:
            for batch in table.to_batches(BATCH_ROWS):
                writer.write_batch(batch)
            writer.add_key_value_metadata(metadata)
        connection.close()
        upload(local / "queue.csv", folder.queue(1))
        upload(local / "table", folder.results)
        record = _record(folder, night, counts, local / "table")
    record.save(folder)
    write_bytes(folder.success, b"")
    return folder, record


def night_table(folder: RunFolder, night: Night) -> pa.Table:
    """The rows of a night in the order of a published table."""
    draw, count = np.random.default_rng([night.seed, _number(night.run_date)]), night.rows
    place = np.arange(count)
    category, line = place % len(CATEGORIES), (place // len(CATEGORIES)) % len(LINES)
    drawn = draw.standard_gamma(SHAPE, count)
    lot = draw.random(count)
    failed = lot < night.failed
    unknown = ~failed & (lot < night.failed + night.unknown)
    doubtful = ~failed & ~unknown & (lot < night.failed + night.unknown + night.doubtful)
    scored = ~failed & ~unknown
    routed = np.where(doubtful, (category + 1) % len(CATEGORIES), category)
    scale = np.array([SCALES[name] for name in CATEGORIES])[routed]
    scale *= np.array([night.louder.get(name, 1.0) for name in LINES])[line]
    score = drawn * scale
    threshold = np.array([night.thresholds[name] for name in CATEGORIES])[routed]
    anomalous = scored & (score >= threshold)
    decision = np.select([failed, unknown, anomalous, doubtful], ["failed", "review", "anomalous", "review"], "normal")
    why = draw.integers(len(FAILURES), size=count)
    midnight = datetime.strptime(night.run_date, "%Y-%m-%d").replace(tzinfo=UTC)
    captured = (
        np.datetime64(midnight.replace(tzinfo=None), "us") - np.timedelta64(1, "D") + place * 86_400_000_000 // count
    )
    names = [f"{night.images}/{night.run_date}/{LINES[on]}/{i:08d}.png" for i, on in zip(place, line, strict=True)]
    nothing = np.ones(count, bool)
    columns: dict[str, pa.Array] = {
        "image_id": pa.array([hashlib.md5(name.encode(), usedforsecurity=False).hexdigest() for name in names]),
        "uri": pa.array(names),
        "captured_at": pa.array(captured, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "line": pa.array(np.array(LINES)[line]),
        "camera": pa.array(np.array(["top", "side"])[place // 12 % 2]),
        "declared_category": pa.array(np.array(CATEGORIES)[category]),
        "batch": pa.array([f"batch-{i // 500}" for i in place]),
        "status": pa.array(np.where(failed, "failed", "scored")),
        "error_stage": _if(failed, np.array([stage for stage, _ in FAILURES])[why]),
        "error_code": _if(failed, np.array([code for _, code in FAILURES])[why]),
        "error_message": _if(failed, np.full(count, "the object is not as it should be")),
        "attempts": pa.array(np.where(failed, 3, 1), pa.int32()),
        "width": _if(~failed, np.full(count, 900, np.int32)),
        "height": _if(~failed, np.full(count, 700, np.int32)),
        "category": _if(~failed, np.array(CATEGORIES)[routed]),
        "category_confidence": _if(~failed, draw.uniform(0.9, 1, count).astype(np.float32)),
        "category_distance": _if(~failed, np.where(unknown, 1.5, draw.uniform(0.2, 0.8, count)).astype(np.float32)),
        "route_agrees": _if(~failed, ~doubtful),
        "score": _if(scored, score),
        "threshold": _if(scored, threshold),
        "margin": _if(scored, score / threshold),
        "p_value": _if(scored, gamma.sf(score / scale, SHAPE)),
        "decision": pa.array(decision),
        "decision_reason": _if(
            unknown | anomalous | doubtful,
            np.select(
                [unknown, anomalous & doubtful, anomalous],
                [
                    "unknown_category",
                    "score_at_or_above_threshold,declared_category_disagrees",
                    "score_at_or_above_threshold",
                ],
                "declared_category_disagrees",
            ),
        ),
        "peak_x": _if(scored, draw.uniform(0, 900, count).astype(np.float32)),
        "peak_y": _if(scored, draw.uniform(0, 700, count).astype(np.float32)),
        "run_id": pa.array(np.full(count, folder.run_id)),
        "shard": pa.array((place // 256).astype(np.int32)),
        "bundle_digest": _if(nothing, np.full(count, night.bundle_digest)),
        "scored_at": pa.array([midnight] * count, pa.timestamp("us", tz="UTC")),
    }
    worst = np.argsort(np.where(anomalous, -score / threshold, np.inf))[: min(night.pictures, int(anomalous.sum()))]
    for column, ending in (("heatmap_path", ".png"), ("overlay_path", "_overlay.png")):
        paths = np.full(count, None, object)
        for i in worst:
            paths[i] = join(folder.heatmaps, columns["category"][i].as_py(), f"{columns['image_id'][i]}{ending}")
        columns[column] = pa.array(paths, pa.string())
    for i in worst:
        _pictures(columns["heatmap_path"][i].as_py(), columns["overlay_path"][i].as_py(), score[i], threshold[i])
    columns |= {name: pa.array([value] * count) for name, value in night.more.items()}
    schema = result_schema(night.extras)
    table = pa.Table.from_arrays(
        [columns[one.name].cast(one.type) if one.name in columns else pa.nulls(count, one.type) for one in schema],
        schema=schema,
    )
    return table.take(pc.sort_indices(table, [("line", "ascending"), ("category", "ascending")]))


def _if(there: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=~there)


def _number(run_date: str) -> int:
    return datetime.strptime(run_date, "%Y-%m-%d").replace(tzinfo=UTC).toordinal()


def _pictures(heat: str, over: str, score: float, threshold: float) -> None:
    error_map = np.full((28, 28), 0.2 * threshold)
    error_map[8:14, 10:18] = score
    relative = relative_map(error_map, threshold, (224, 224))
    write_bytes(heat, png(heatmap(relative)))
    write_bytes(over, png(overlay(relative, np.full((224, 224, 3), 128, np.uint8))))


def _record(folder: RunFolder, night: Night, counts: dict[str, Any], table: Path) -> RunRecord:
    began = datetime.strptime(night.run_date, "%Y-%m-%d").replace(hour=1, tzinfo=UTC)
    seconds = 60 + night.rows / 50
    settings = {"heatmaps": "anomalous", "min_confidence": 0.5, "trust_declared": False}
    settings |= {"limit": None, "allow": [night.images], "max_bytes": 64 * 2**20, "max_pixels": 100_000_000}
    parts = {
        "manifest": "m" * 64,
        "bundle": night.bundle_digest,
        "precision": "bfloat16",
        "settings": settings,
        "code": {},
    }
    digest = FileDigest.of(table)
    return RunRecord(
        run_id=folder.run_id,
        state="committed",
        manifest=f"s3://plant/manifests/{night.run_date}.parquet",
        source_sha256="5" * 64,
        bundle=night.bundle,
        device="cpu",
        fingerprint="f" * 64,
        parts=parts | {"code": {}},
        frozen={
            "rows": night.rows,
            "left_out": {},
            "extras": base64.b64encode(night.extras.serialize().to_pybytes()).decode(),
        },
        results=folder.results,
        created_at=began.isoformat(timespec="seconds"),
        finished_at=(began + timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        starts=1,
        counts=counts,
        timings={
            "seconds": seconds,
            "images_per_second": round(night.rows / seconds, 1),
            "rows_scored_now": night.rows,
            "node_seconds": seconds,
            "stages": {
                s: {"seconds": seconds / 4, "cpu_seconds": seconds / 4} for s in ("load", "extract", "score", "write")
            },
            "limiting": {"limiting": "CPU", "why": "96 % of the CPUs in use", "next": "more CPUs"},
        },
        exit_code=0,
        preprocessing=Preprocessing(),
        exit_reason="committed, failures within the error budget",
        published=Published(table=digest, digests=digest),
    )


def write_drifting_nights(output: str) -> tuple[RunFolder, RunRecord]:
    """Ten quiet nights, and one, which is returned, in which a line is much louder."""
    for day in range(1, 11):
        write_night(output, Night(f"2026-03-{day:02d}", rows=1500, seed=day))
    return write_night(output, Night("2026-03-11", rows=1500, seed=11, louder={"L3": 1.6}))
