"""The benchmarks measure what they say: the ways that are compared give the same scores."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from anomaly_core.bundle import Bundle
from anomaly_core.preprocess import decode
from tests.anomaly_core.files import encode
from tests.bench import archive, compare, freezing, job, roofs
from tests.bench.archive import ANOMALOUS, Source, write_archive, write_bundle
from tests.bench.baselines import dataloader, reference
from tests.bench.job import SHARD_ROWS, Arrival, _each, _stop, enough, steady
from tests.bench.roofs import STAGES, Roofs, _step, limiting, together
from tests.bench.scale import long_manifest
from tests.bundles import random_pixels
from tests.nights import Night, write_night

FEW = ("bottle", *ANOMALOUS, "zipper")


def small() -> Source:
    pictures = random_pixels(len(FEW), seed=5)
    return Source(tuple((c, encode(p, "PNG")) for c, p in zip(FEW, pictures, strict=True)), "small ones")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Bundle]:
    """Bundle folder, manifest, and the bundle; random weights, whatever lies beside the project."""
    work = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "shared_root", lambda: None)
        patch.setattr(archive, "CATEGORIES", FEW)
        bundle = write_bundle(work / "bundle", small().images, "float32")
    return work / "bundle", write_archive(work / "archive", small(), 20, "png"), bundle


def test_the_baselines_score_as_the_job_does(made: tuple[Path, Path, Bundle], tmp_path: Path) -> None:
    _, manifest, bundle = made
    rows = pq.read_table(manifest).slice(0, 6).to_pylist()
    extractor, want = bundle.extractor("cpu", "float32"), []
    for row in rows:
        routed = extractor(decode(Path(row["uri"]).read_bytes()).pixels[None])
        scored = bundle.scorer(row["declared_category"], "cpu", "float32")(routed.layer2, routed.layer3)
        want.append(float(scored.score[0]))
    for name, way in (("dataloader", dataloader), ("reference", reference)):
        (tmp_path / name).mkdir()
        way(bundle, rows, tmp_path / name)
        found = pq.read_table(tmp_path / name / "results.parquet").to_pylist()
        found.sort(key=lambda row: row["uri"])  # in a batch they come by category
        assert [row["uri"] for row in found] == [row["uri"] for row in rows]
        np.testing.assert_allclose([row["score"] for row in found], want, rtol=1e-4)
        anomalous = [row["uri"] for row in rows if row["declared_category"] in ANOMALOUS]
        assert [row["uri"] for row in found if row["anomalous"]] == anomalous
        assert len(list((tmp_path / name).glob("*_overlay.png"))) == len(anomalous) > 0


@pytest.mark.parametrize("stage", STAGES)
def test_every_roof_takes_images_through_its_stage(made: tuple[Path, Path, Bundle], tmp_path: Path, stage: str) -> None:
    folder, manifest, _ = made
    step = _step(stage, folder, manifest, "float32", tmp_path / "work")
    assert step() >= 1 and step() >= 1
    written = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"write": {".parquet"}, "render": {".png"}}.get(stage, set())


def test_roofs_are_measured_again_and_again(
    made: tuple[Path, Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofs, "cores", lambda: 1)
    with Roofs(*made[:2], "float32", tmp_path) as alone:
        alone.measure(0.01)
        alone.measure(0.01)
    assert [set(one) for one in alone.found] == [set(STAGES)] * 2
    assert all(rate > 0 for rate in alone.rates().values())
    assert not alone.processes[0].is_alive()


def test_the_roof_of_all_stages_is_what_an_image_costs_in_each() -> None:
    rates = {"decode": 10.0, "route": 10.0, "features": 5.0}
    assert together(rates) == pytest.approx(2.5) and limiting(rates) == "features"


def test_the_roof_beside_a_gpu_is_the_slowest_of_decoding_copying_and_models() -> None:
    rates = {"fetch": 1.0, "decode": 50.0, "route": 80.0, "features": 80.0, "score": 40.0, "write": 1.0, "copy": 900.0}
    assert together(rates) == pytest.approx(20) and limiting(rates) == "models"
    assert together(rates | {"decode": 15.0}) == 15 and limiting(rates | {"decode": 15.0}) == "decode"


def test_a_long_manifest_is_frozen_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = freezing.measure(2000, tmp_path)
    assert (found["rows"], found["shards"]) == (2000, 16)
    assert found["cpu_seconds"] > 0 and found["peak_mib"] >= found["before_mib"] > 0


def test_long_runs_are_compared_in_a_process_of_their_own(tmp_path: Path) -> None:
    night = write_night(str(tmp_path), Night("2026-03-01", rows=600))[0].uri
    found = compare.measure(night, night, str(tmp_path / "page.html"))
    assert (found["question"], found["shared"]) == ("images", 600)
    assert found["cpu_seconds"] > 0 and found["peak_mib"] >= found["before_mib"] > 0


def test_a_long_manifest_is_frozen_and_committed(tmp_path: Path) -> None:
    found = long_manifest(tmp_path / "work", 3000)
    assert found["rows"] == 3000 and found["memory_commit"] >= found["memory_before"] > 0
    published = pq.read_table(tmp_path / "work" / "out" / "results" / "run_date=2026-01-01" / "audit.parquet")
    assert len(published) == 3000


def _timings(load: float) -> dict[str, Any]:
    stages = {"load": {"cpu_seconds": load}, "write": {"cpu_seconds": 0.0}}
    return {"machine": {"extracted_at_once": 2}, "stages": stages}


def _arrivals(loading: float) -> list[Arrival]:
    """30 shards, the first and the last of which come twice as fast; so many CPU seconds of loading each."""
    arrivals, seconds = [], 0.0
    for shard in range(1, 31):
        seconds += 4.0 if 4 < shard <= 22 else 2.0
        arrivals.append(Arrival(shard, seconds, loading * shard))
    return arrivals


def test_the_steady_rate_is_that_of_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "cores", lambda: 2)
    images = 30 * SHARD_ROWS
    assert steady(_arrivals(1.0), images, _timings(30.0)) == pytest.approx(SHARD_ROWS / 4)
    assert steady(_arrivals(2.0), images, _timings(30.0)) == pytest.approx(SHARD_ROWS / 4)
    # Half of the loading was done before: half a CPU second a shard, of two cores.
    assert steady(_arrivals(0.5), images, _timings(30.0)) == pytest.approx(SHARD_ROWS / 4.25)
    with pytest.raises(ValueError, match="640 images are too few for a steady state: 1536 are enough"):
        steady(_arrivals(1.0)[:10], 10 * SHARD_ROWS, _timings(10.0))
    # The middle of 24 shards is that of 30, without the end: 4 seconds each, but for the first of it.
    assert steady(_arrivals(1.0)[:24], enough(2), _timings(24.0)) == pytest.approx(SHARD_ROWS / 4)


def test_shards_that_come_in_waves_have_their_steady_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "cores", lambda: 64)
    # 64 at once, each 8 seconds, which end together: waves, of which a follower sees the halves apart.
    waves = enough(64) // SHARD_ROWS // 64
    arrivals = [Arrival(32 * half, 8.0 * (half // 2) + 0.2 * (half % 2), 0.0) for half in range(1, 2 * waves + 1)]
    timings = {"machine": {"extracted_at_once": 64}, "stages": {s: {"cpu_seconds": 0.0} for s in ("load", "write")}}
    assert steady(arrivals, enough(64), timings) == pytest.approx(64 * SHARD_ROWS / 8, rel=0.05)


def test_a_job_is_stopped_with_its_children_and_goes_on() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        parent, end = psutil.Process(process.pid), time.monotonic() + 30
        while not parent.children() and time.monotonic() < end:
            time.sleep(0.05)
        family = _stop(parent)
        while any(one.status() != psutil.STATUS_STOPPED for one in family) and time.monotonic() < end:
            time.sleep(0.05)  # a signal takes its time where the machine is busy
        stopped = [one.status() for one in family]
        _each(family, psutil.Process.resume)
        process.communicate(b"\n", timeout=30)
    assert stopped == [psutil.STATUS_STOPPED] * 2
    assert process.returncode == 0
