"""A committed run with error maps and images, written without models, and what commands make of it later."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from anomaly_core.bundle import Bundle
from anomaly_core.preprocess import Preprocessing, decode
from anomaly_core.scoring import score_maps
from jobs.audit import rethreshold as rethresholding
from jobs.audit import retry as retrying
from jobs.audit.commit import commit
from jobs.audit.record import RunFolder, RunRecord, shard_name
from jobs.audit.redecide import redecide
from jobs.audit.results import file_metadata, shard_schema
from jobs.audit.run import retries
from jobs.audit.write import parquet_bytes
from jobs.listing import listing
from jobs.storage import reading, upload, write_bytes
from jobs.uris import join
from manifests.freeze import FrozenManifest, read_shard
from tests.anomaly_core.files import colours, encode, exif, stored
from tests.jobs.audit.runs import scored_run

THRESHOLD = 0.1
BUNDLE = Bundle({}, ("cap",), {"cap": THRESHOLD}, "b", "v1.5")
Facts = dict[str, dict[str, Any]]
# Upright pictures, (height, width, 3), and where in 28 x 28 their error is highest: row, column.
PICTURES = {
    "images/turned.png": (colours(180, 300), (5, 20)),
    "images/tall.png": (colours(500, 230, seed=1), (26, 1)),
    "images/[red]odd.jpg": (colours(224, 224, seed=2), (13, 13)),
    "images/late.png": (colours(120, 90, seed=3), (2, 25)),
    "images/later.png": (colours(100, 160, seed=4), (20, 9)),
    "../outside.png": (colours(64, 64, seed=5), (3, 3)),
}
TURNED, TALL, ODD, LATE, LATER, OUTSIDE = PICTURES
BROKEN = "images/broken.png"


def hot_map(cell: tuple[int, int]) -> npt.NDArray[np.float16]:
    """Errors far below the threshold but for one cell."""
    error_map = np.random.default_rng(cell[0]).uniform(0.01, 0.04, (28, 28)).astype(np.float16)
    error_map[cell] = 0.19
    return error_map


def failed(stage: str, code: str) -> dict[str, Any]:
    """What the row of an image that could not be scored says."""
    return {
        "status": "failed",
        "error_stage": stage,
        "error_code": code,
        "error_message": "[b]why",
        "decision": "failed",
    }


def scored(uri: str, data: bytes) -> dict[str, Any]:
    """What the row of an image says that was scored."""
    error_map = hot_map(PICTURES[uri][1])
    score, _, peak = score_maps(torch.from_numpy(error_map.astype(np.float32))[None], "top10_mean_224")
    seen = decode(data)
    margin = float(score[0]) / THRESHOLD
    return {
        "status": "scored", "sha256": hashlib.sha256(data).hexdigest(), "width": seen.width, "height": seen.height,
        "category": "cap", "category_confidence": 0.99, "score": float(score[0]), "threshold": THRESHOLD,
        "margin": margin, "p_value": 0.005, "decision": "anomalous" if margin >= 1 else "normal",
        "peak_x": peak[0, 0] * seen.width, "peak_y": peak[0, 1] * seen.height, "error_map": error_map.ravel(),
    }  # fmt: skip


def write_shards(folder: RunFolder, record: RunRecord, frozen: FrozenManifest, facts: Facts) -> None:
    """The shard files of a run or a retry; what no fact is known of is a duplicate."""
    schema = shard_schema(frozen.extras)
    for shard in frozen.shards:
        with reading(join(folder.manifest, shard.part)) as file:
            rows = read_shard(file, shard.row_group).to_pylist()
        common = {"attempts": 1, "run_id": record.run_id, "bundle_digest": "b", "scored_at": datetime.now(UTC)}
        for row in rows:
            known = failed("manifest", "duplicate") if row["problem_code"] else facts[row["uri"]]
            row.update(common | known)
        metadata = file_metadata(record.run_id, record.fingerprint, "b", shard.index)
        data = parquet_bytes(pa.Table.from_pylist(rows, schema), metadata)
        write_bytes(join(folder.shards, shard_name(shard.index)), data)


@dataclass
class Made:
    """A run, where it and its images are, and what is known of every image."""

    root: str
    folder: RunFolder
    record: RunRecord
    facts: Facts

    @property
    def run(self) -> str:
        """The address of the run."""
        return self.folder.uri

    def image(self, uri: str) -> str:
        """The address of an image."""
        return join(self.root, "archive", uri)


def make_run(work: Path) -> Made:
    """Committed: three images are scored, two failed for a reason that can pass, one is broken, one comes twice."""
    facts = {BROKEN: failed("decode", "truncated_image")}
    for uri, (picture, _) in PICTURES.items():
        kind = "JPEG" if uri.endswith("jpg") else "PNG"
        data = encode(stored(picture, 6), kind, exif=exif(6)) if uri == TURNED else encode(picture, kind)
        path = work / "archive" / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        facts[uri] = scored(uri, data)
    uris = [*PICTURES, BROKEN, TURNED]
    times = pa.array([datetime(2026, 1, 1, 22, i, tzinfo=UTC) for i in range(len(uris))], pa.timestamp("us", tz="UTC"))
    manifest = pa.table({"uri": uris, "line": ["L[1]"] * len(uris), "captured_at": times})
    pq.write_table(manifest, work / "archive" / "manifest.parquet")
    folder, record, frozen = scored_run(work, manifest, shard_rows=3)
    settings = {"heatmaps": "none", "limit": None, "allow": [], "trust_declared": False, "min_confidence": 0.5}
    settings |= {"max_bytes": 2**20, "max_pixels": 10**6}
    record.parts = {"bundle": "b", "precision": "float32", "settings": settings, "code": {}}
    record.manifest, record.bundle = str(work / "archive" / "manifest.parquet"), str(work / "bundle")
    record.preprocessing, record.state = Preprocessing(), "committed"
    made = Made(str(work), folder, record, facts)
    late = {uri: failed("fetch", "throttled") for uri in (LATE, LATER)}
    write_shards(folder, record, frozen, facts | late)
    record.counts = commit(folder, record, frozen, ours=lambda: None)
    record.save(folder)
    write_bytes(folder.success, b"")
    return made


def moved(made: Made, place: str) -> Made:
    """A copy of a run with its images in another place."""
    for entry in listing(made.root):
        upload(Path(entry.uri), join(place, entry.relative_path))
    folder = RunFolder(join(place, "out"), made.folder.run_date, made.folder.name)
    record = made.record.model_copy(deep=True)
    record.manifest, record.bundle = join(place, "archive", "manifest.parquet"), join(place, "bundle")
    record.save(folder)
    return Made(place, folder, record, made.facts)


def retry(made: Made, *recovered: str) -> None:
    """What retry-failed does: rows that failed are tried again, and some of them are scored."""
    whole = FrozenManifest.from_dict(made.record.frozen)
    plan = retrying._plan(made.folder, made.record, whole, retrying.RETRIED, lambda said: None)
    assert plan is not None
    facts = {uri: made.facts[uri] if uri in recovered else failed("fetch", "throttled") for uri in made.facts}
    write_shards(plan.folder, made.record, plan.frozen, facts)
    laid_over = [*retries(made.folder, made.record), (plan.folder, plan.frozen)]
    config, version = retrying.config_of(made.folder, made.record, {}), made.record.version + 1
    with redecide(config, made.folder, BUNDLE, made.record) as again:
        made.record.counts = commit(
            made.folder,
            made.record,
            whole,
            laid_over,
            ours=lambda: None,
            retrying=True,
            redecide=again,
            version=version,
        )
    made.record.retries.append({"version": version, "frozen": plan.frozen.to_dict()})
    made.record.save(made.folder)


def rethreshold(made: Made, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, with a bundle of which nothing but its thresholds is there."""
    given = join(made.root, "thresholds.json")
    write_bytes(given, f'{{"cap": {threshold}}}'.encode())
    with monkeypatch.context() as patch:
        patch.setattr(rethresholding, "_bundle", lambda *_: BUNDLE)
        made.record = rethresholding.rethreshold(made.run, given, {}).record
