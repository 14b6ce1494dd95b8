"""The audit from s3:// to s3://, against a real server on loopback."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.run import Outcome, audit, exit_code
from jobs.listing import listing, names_below
from jobs.storage import delete, filesystem
from jobs.storage_errors import StorageAccessError
from jobs.verify.command import verify_command
from jobs.verify.run import Settings, verify
from tests.faults.proxy import FaultyServer
from tests.jobs.audit.conftest import EXPECTED_FAILURES, ROWS, remote_config
from tests.jobs.audit.tables import published, stable

pytestmark = pytest.mark.usefixtures("ray_cluster")
OUT = "s3://line/out"


@pytest.fixture(autouse=True)
def _calm(endpoint: FaultyServer) -> None:
    endpoint.faults.clear()


def test_same_rows_from_s3_as_from_disk(run: tuple[Path, Outcome]) -> None:
    remote = audit(remote_config())
    assert remote.code == exits.COMMITTED
    assert remote.record.counts["failed_by_code"] == EXPECTED_FAILURES
    names = [e.relative_path for e in listing(OUT) if not e.relative_path.startswith("heatmaps/")]
    parts = [f"runs/2026-01-02/audit/shards/shard-{i:06d}.parquet" for i in range(9)]
    assert names == [
        "results/run_date=2026-01-02/audit.parquet",
        "runs/2026-01-02/audit/_SUCCESS",
        "runs/2026-01-02/audit/digests.parquet",
        "runs/2026-01-02/audit/manifest/part-00000.parquet",
        "runs/2026-01-02/audit/report.html",
        "runs/2026-01-02/audit/report.json",
        "runs/2026-01-02/audit/review/queue-0001.csv",
        "runs/2026-01-02/audit/run.json",
        *parts,
    ]
    with filesystem("s3://").open("line/out/results/run_date=2026-01-02/audit.parquet") as file:
        ours = stable(pq.read_table(file))
    theirs = stable(published(run[0]))
    assert len(ours) == ROWS
    for row in (*ours, *theirs):
        row["error_message"] = None  # it quotes the storage
    assert ours == theirs
    assert audit(remote_config()).scored_shards == 0


def test_verification_of_a_run_on_s3(capfd: pytest.CaptureFixture[str]) -> None:
    run = f"{OUT}/runs/2026-01-02/audit"
    audit(remote_config())  # there already, unless this test runs alone
    assert verify_command(Settings(run, sample=3)) == exits.COMMITTED
    assert "all that was checked holds" in capfd.readouterr().out
    pictures = sorted(names_below(f"{OUT}/heatmaps"))
    assert pictures == [entry.relative_path for entry in listing(f"{OUT}/heatmaps")]
    delete(f"{OUT}/heatmaps/{pictures[0]}")
    (failed,) = [check for check in verify(Settings(run, sample=0)).checks if check.status == "failed"]
    assert (failed.name, failed.said) == ("pictures", "1 picture not there")
    assert failed.examples == (f"{OUT}/heatmaps/{pictures[0]}",)
    assert verify_command(Settings("s3://no-such-bucket/out/runs/2026-01-02/audit")) == exits.NO_ACCESS
    assert verify_command(Settings(f"{OUT}/runs/2026-01-03/audit")) == exits.USAGE


def test_absent_bucket_exits_with_4() -> None:
    with pytest.raises(StorageAccessError) as caught:
        audit(remote_config(output="s3://no-such-bucket/out"))
    assert exit_code(caught.value) == exits.NO_ACCESS


def test_manifest_that_is_not_there_exits_with_2() -> None:
    with pytest.raises(AuditError) as caught:
        audit(remote_config(manifest="s3://line/archive/none.csv", name="none"))
    assert caught.value.code == exits.USAGE
