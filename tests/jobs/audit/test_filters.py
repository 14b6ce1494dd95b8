"""Audits of a part of a manifest: which rows they have, what they are bound to, and what is new the night after."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import exits
from jobs.audit.command import run_command
from jobs.audit.config import AuditConfig, ErrorBudget
from jobs.audit.exits import AuditError, NothingNew
from jobs.audit.plan import freeze_manifest
from jobs.audit.record import RunFolder
from jobs.audit.run import Outcome, audit, dry_run
from jobs.listing import listing
from jobs.storage import delete
from jobs.verify.run import Settings, verify
from tests.jobs.audit.conftest import ROWS, config
from tests.jobs.audit.tables import published, stable

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_condition_and_a_sample_leave_the_rows_that_they_say_and_bind_the_run(
    run: tuple[Path, Outcome], archive: Path, bundle: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"where": "line = 'L1' and batch <> 'batch-2'", "sample": "60%"}
    outcome = audit(config(archive, bundle, tmp_path, **settings))
    assert outcome.code == exits.COMMITTED
    taken = stable(published(tmp_path))
    whole = {row["image_id"]: row for row in stable(published(run[0]))}
    wanted = [
        row
        for row in whole.values()
        if row["line"] == "L1" and row["batch"] != "batch-2" and int(row["image_id"][:8], 16) < 0.6 * 2**32
    ]
    assert 2 < len(wanted) < 10
    for row in (*taken, *wanted):
        row["shard"] = None
    by_name = {row["image_id"]: row for row in taken}
    assert by_name == {row["image_id"]: row for row in wanted}
    left_out = outcome.record.frozen["left_out"]
    assert left_out["where"] + left_out["sample"] + len(taken) == ROWS
    report = verify(Settings(f"{tmp_path}/runs/2026-01-02/audit", sample=2))
    assert report.holds and {check.status for check in report.checks} == {"ok"}

    # The run is bound to its filters.
    assert audit(config(archive, bundle, tmp_path, **settings)).scored_shards == 0
    for other, says in (
        ({**settings, "where": "line = 'L2'"}, "where: line = 'L1' and batch <> 'batch-2' then, line = 'L2' now"),
        ({"sample": "60%"}, "where: line = 'L1' and batch <> 'batch-2' then, None now"),
        ({**settings, "sample": "50%"}, "sample: 60% then, 50% now"),
        ({**settings, "sample": None}, "sample: 60% then, None now"),
        ({**settings, "also": (str(archive / "manifest.csv"),)}, "also: None then, ["),
    ):
        with pytest.raises(AuditError, match=re.escape(says)) as refused:
            audit(config(archive, bundle, tmp_path, **other))
        assert refused.value.code == exits.USAGE


def images_config(images: Path, bundle: str, output: Path, **settings: Any) -> AuditConfig:
    places = {"manifest": str(images), "bundle": bundle, "output": str(output), "since": "last-run"}
    return AuditConfig(**(places | {"shard_rows": 3, "max_failed": ErrorBudget(count=7)} | settings))


def test_the_night_after_audits_what_is_new(archive: Path, bundle: str, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    days_ago = (datetime.now(UTC) - timedelta(days=3)).timestamp()

    def arrive(*numbers: int, at: float | None = None) -> None:
        for number in numbers:
            source = archive / "images" / f"{number:03d}.{'png' if number % 2 else 'jpg'}"
            (images / source.name).write_bytes(source.read_bytes())
            if at is not None:
                os.utime(images / source.name, (at, at))

    def night(date: str, **settings: Any) -> list[str]:
        assert audit(images_config(images, bundle, output, run_date=date, **settings)).code == exits.COMMITTED
        return sorted(Path(row["uri"]).name for row in published(output, date).to_pylist())

    arrive(0, 1, at=days_ago)
    arrive(2)
    assert night("2026-01-01") == ["000.jpg", "001.png", "002.jpg"]
    with pytest.raises(NothingNew, match="nothing is new, so nothing is to do; left out: 3 rows that are not new"):
        dry_run(images_config(images, bundle, output, run_date="2026-01-02"))
    said = {"manifest": str(images), "bundle": bundle, "output": str(output), "run_date": "2026-01-02"}
    assert run_command({**said, "since": "last-run", "max_failed": "25"}) == exits.COMMITTED
    assert {entry.relative_path[:10] for entry in listing(f"{output}/runs")} == {"2026-01-01"}
    arrive(1, at=days_ago + 1)  # overwritten: another image of the same name
    (tmp_path / "local").mkdir()
    found = freeze_manifest(images_config(images, bundle, output, run_date="2026-01-02"), tmp_path / "local")
    assert (found.rows, found.left_out["since"]) == (1, 2)
    arrive(1, at=days_ago)
    arrive(3, 4)
    assert night("2026-01-02", limit=1) == ["003.png"]
    arrive(5, at=days_ago)  # late, as copies are that keep the times of their files
    assert night("2026-01-03") == ["004.jpg", "005.png"]
    # Without what was seen, all is new again.
    for date in ("2026-01-01", "2026-01-02"):
        delete(RunFolder(str(output), date, "audit").success)
    (tmp_path / "again").mkdir()
    found = freeze_manifest(images_config(images, bundle, output, run_date="2026-01-04"), tmp_path / "again")
    assert (found.rows, found.left_out["since"]) == (4, 2)
