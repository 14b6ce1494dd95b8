"""Images that kill or hang their process, or make the decoder fail: a retry of their shard, then each its own row."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from jobs.audit import exits
from jobs.audit.config import AuditConfig, ErrorBudget
from jobs.audit.run import audit
from tests.jobs.audit.poison import BUG, HANGER, KILLER, STARVER, install
from tests.jobs.audit.tables import published

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def poisoned_ray() -> Iterator[None]:
    ray.shutdown()
    ray.init(
        address="local",
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        logging_level=logging.WARNING,
        # Workers import the hook before they know the driver's path.
        runtime_env={"worker_process_setup_hook": install, "env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("poisoned_ray")
def test_each_costs_its_row_and_no_other(archive: Path, bundle: str, tmp_path: Path) -> None:
    for name, data in (("killer", KILLER), ("hanger", HANGER), ("starver", STARVER), ("bug", BUG)):
        (archive / "images" / f"{name}.png").write_bytes(data)
    names = ["000.jpg", "killer.png", "002.jpg", "003.png", "hanger.png", "005.png"]
    names += ["006.jpg", "starver.png", "bug.png", "007.png"]
    manifest = archive / "poison.csv"
    manifest.write_text("uri\n" + "".join(f"images/{name}\n" for name in names))
    config = AuditConfig(
        manifest=str(manifest),
        bundle=bundle,
        output=str(tmp_path),
        run_date="2026-01-02",
        shard_rows=3,
        max_failed=ErrorBudget(count=4),
        decode_timeout=3.0,
        heatmaps="none",
    )
    outcome = audit(config)
    assert outcome.code == exits.COMMITTED
    rows = {Path(row["uri"]).name: row for row in published(tmp_path).to_pylist()}
    assert sorted(rows) == sorted(names)
    failed = {name: (row["error_stage"], row["error_code"]) for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {
        "killer.png": ("decode", "decoder_died"),
        "hanger.png": ("decode", "decode_timeout"),
        "starver.png": ("decode", "corrupt_image"),
        "bug.png": ("decode", "decoder_died"),
    }
    assert set(outcome.record.timings["shards_tried_again"]) == {"0", "1", "3"}
