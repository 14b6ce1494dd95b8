"""What goes wrong around the nightly pod: nothing is left running, and what may pass is waited out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from datetime import time as day_time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cluster.nightly.api import KubernetesApi
from cluster.nightly.dates import night_of
from cluster.nightly.night import Clock, Night, audit_night
from cluster.nightly.rayjob import night_job
from jobs.audit.exits import AuditError
from tests.cluster.audits import NIGHT, TEMPLATE, Hours, audit, ends
from tests.cluster.fake_kubernetes import Cluster


def test_a_job_that_somebody_deletes_is_lost(cluster: Cluster) -> None:
    cluster.course = [cluster.status(jobDeploymentStatus="Running"), "gone"]
    with pytest.raises(AuditError, match="was deleted before its audit had ended") as error:
        audit(cluster)
    assert error.value.code == 1


@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_refused_creation_is_not_retried_by_the_scheduler(cluster: Cluster, status: int) -> None:
    cluster.refusals = {"POST": [status] * 9}
    with pytest.raises(AuditError, match=f"refuses POST .*{status}: refused with {status}") as error:
        audit(cluster)
    assert error.value.code == 2
    assert len(cluster.deleted) == 1 and not cluster.created


def test_a_token_is_read_anew_and_sent(cluster: Cluster, tmp_path: Path) -> None:
    ends(cluster, 0)
    cluster.token = "secret"
    (tmp_path / "token").write_text("secret\n")
    assert audit(cluster, tmp_path) == 0
    (tmp_path / "token").write_text("old\n")
    with pytest.raises(AuditError, match="401: Unauthorized"):
        audit(cluster, tmp_path)


def test_errors_that_pass_are_waited_out(cluster: Cluster) -> None:
    ends(cluster, 0)
    cluster.refusals = {"GET": [503, 429, 401], "POST": [500, 502]}
    assert audit(cluster) == 0
    assert len(cluster.created) == 1


def test_a_lost_answer_does_not_make_two_jobs(cluster: Cluster) -> None:
    ends(cluster, 0)
    body = night_job(TEMPLATE, NIGHT, None)
    api = KubernetesApi(cluster.url, "line-audit", None)
    first, second = api.create(body), api.create(body)
    assert first["metadata"]["uid"] == second["metadata"]["uid"] and len(cluster.created) == 1


def test_an_api_that_stays_away_ends_the_night_and_its_job(cluster: Cluster) -> None:
    cluster.course = [cluster.status(jobDeploymentStatus="Running")]
    hours = Hours()
    api = KubernetesApi(cluster.url, "line-audit", None, hours.wait)

    def wait(seconds: float) -> None:
        hours.wait(seconds)
        cluster.refusals["GET"] = [503] * 5

    with pytest.raises(AuditError, match="for 600 s already") as error:
        audit_night(api, Night("line-audit", NIGHT), 10.0, Clock(lambda: hours.seconds, wait))
    assert error.value.code == 1
    assert cluster.deleted == [cluster.created[0]["metadata"]["name"]]


def test_a_job_that_never_ends_is_deleted_after_its_deadline(cluster: Cluster) -> None:
    cluster.course = [cluster.status(jobDeploymentStatus="Running")]
    with pytest.raises(AuditError, match="past its deadline of 3600 s: does its operator run") as error:
        audit(cluster)
    assert error.value.code == 1
    assert cluster.deleted == [cluster.created[0]["metadata"]["name"]]


def started(cluster: Cluster, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.nightly", "--server", cluster.url, "--poll", "0.05", *options],
        env={**os.environ, "JOB_NAME": "", "JOB_UID": "", **environment},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_sigterm_deletes_the_job(cluster: Cluster) -> None:
    cluster.course = [cluster.status(jobDeploymentStatus="Running")]
    process = started(cluster, LINE_AUDIT_RUN_DATE="2026-11-24")
    try:
        end = time.monotonic() + 60
        while not cluster.created and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert cluster.created
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert cluster.deleted == [cluster.created[0]["metadata"]["name"]]
    assert "interrupted" in said and list(cluster.jobs) == ["line-audit"]


def test_the_command_ends_with_the_audits_code(cluster: Cluster) -> None:
    ends(cluster, 3)
    process = started(cluster, "--time-zone", "Europe/Berlin")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3, said
    expected = night_of(datetime.now(UTC), ZoneInfo("Europe/Berlin"), day_time(12))
    assert cluster.created[0]["spec"]["entrypoint"].endswith(f" --run-date {expected.isoformat()}")
    assert "Traceback" not in said
