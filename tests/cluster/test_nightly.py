"""The nightly pod against an API on loopback: what it creates, how it ends, and that it leaves nothing running."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as day_time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cluster.nightly.api import KubernetesApi
from cluster.nightly.dates import given_date, given_time, night_of, time_zone
from cluster.nightly.night import Clock, Night, audit_night
from cluster.nightly.rayjob import Owner, night_job
from jobs.audit.exits import MEANING, AuditError
from tests.cluster.fake_kubernetes import JOBS, Cluster, kubernetes

TEMPLATE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {
        "name": "line-audit",
        "labels": {"app.kubernetes.io/name": "line-audit"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "resourceVersion": "12",
        "uid": "t-1",
    },
    "spec": {
        "suspend": True,
        "entrypoint": "line-audit audit --config /etc/line-audit/audit.yaml\n",
        "activeDeadlineSeconds": 3600,
        "rayClusterSpec": {"rayVersion": "2.60.0", "headGroupSpec": {}},
    },
    "status": {"jobDeploymentStatus": "Suspended"},
}
NIGHT = date(2026, 11, 24)
OWNER = Owner("line-audit-nightly-29384760", "0f3c")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with kubernetes(copy.deepcopy(TEMPLATE)) as found:
        yield found


class Hours:
    """A clock that runs only while somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


def audit(cluster: Cluster, account: Path | None = None, **told: Any) -> int:
    hours = Hours()
    api = KubernetesApi(cluster.url, "line-audit", account, hours.wait)
    return audit_night(api, Night("line-audit", NIGHT, **told), 10.0, Clock(lambda: hours.seconds, hours.wait))


def ends(cluster: Cluster, code: int | None) -> None:
    """The RayJob runs, and ends with the driver's exit code, as KubeRay and Ray tell it."""
    state, said = ("Complete", "SUCCEEDED") if code == 0 else ("Failed", "FAILED")
    cluster.course = [
        {},
        cluster.status(jobDeploymentStatus="Initializing"),
        cluster.status(jobDeploymentStatus="Running", jobStatus="RUNNING"),
        cluster.status(jobDeploymentStatus=state, jobStatus=said),
    ]
    cluster.driver = {"status": said, "driver_exit_code": code}


def test_the_created_job_is_the_template_for_one_night(cluster: Cluster) -> None:
    ends(cluster, 0)
    assert audit(cluster, owner=OWNER) == 0
    (body,) = cluster.created
    name = body["metadata"]["name"]
    assert name.startswith("line-audit-20261124-") and len(name) <= 47
    assert body == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "line-audit",
                "line-audit/run-date": "2026-11-24",
                "line-audit/job-uid": "0f3c",
            },
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": OWNER.name, "uid": "0f3c"}],
        },
        "spec": {
            "entrypoint": "line-audit audit --config /etc/line-audit/audit.yaml --run-date 2026-11-24",
            "activeDeadlineSeconds": 3600,
            "rayClusterSpec": {"rayVersion": "2.60.0", "headGroupSpec": {}},
        },
    }
    assert cluster.jobs["line-audit"] == TEMPLATE
    assert cluster.deleted == []  # KubeRay removes it, after ttlSecondsAfterFinished


@pytest.mark.parametrize("code", sorted(MEANING))
def test_exit_codes_pass_through(cluster: Cluster, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ends(cluster, code)
    assert audit(cluster) == code
    assert "last line" in capsys.readouterr().out


@pytest.mark.parametrize(("driver", "code"), [(-15, 130), (-2, 130), (-9, 1), (137, 1), (77, 1)])
def test_codes_that_are_not_ours_are_told_in_ours(cluster: Cluster, driver: int, code: int) -> None:
    ends(cluster, driver)
    assert audit(cluster) == code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, 0),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 130),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, 1),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "passed the deadline"}, 1),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "no rayVersion"}, 2),
    ],
)
def test_without_a_dashboard_kuberay_is_believed(
    cluster: Cluster, status: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.course = [cluster.status(**status)]
    assert audit(cluster) == code
    assert status.get("message", "") in capsys.readouterr().out


def test_a_driver_that_still_runs_at_the_deadline_has_no_code(cluster: Cluster) -> None:
    cluster.course = [cluster.status(jobDeploymentStatus="Failed", reason="DeadlineExceeded", jobStatus="RUNNING")]
    cluster.driver = {"status": "RUNNING", "driver_exit_code": None}
    assert audit(cluster) == 1


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"state": "committed", "exit_code": 3, "finished_at": "2026-11-24T09:00:00+00:00"}, 3),
        ({"state": "failed", "exit_code": 5, "finished_at": "2026-11-25T01:00:00+00:00"}, 5),
        ({"state": "failed", "exit_code": 5, "finished_at": "2026-11-25T00:59:59+00:00"}, 1),  # of an earlier start
        ({"state": "running", "exit_code": None, "finished_at": None}, 1),
        (None, 1),
    ],
)
def test_without_a_dashboard_run_json_is_asked(
    cluster: Cluster, tmp_path: Path, record: dict[str, Any] | None, code: int
) -> None:
    config = tmp_path / "audit.yaml"
    config.write_text(f"output: {tmp_path / 'out'}\nname: trial\n")
    if record is not None:
        folder = tmp_path / "out" / "runs" / "2026-11-24" / "trial"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record))
    cluster.course = [cluster.status(jobDeploymentStatus="Failed", jobStatus="FAILED")]
    assert audit(cluster, config=config) == code


def test_the_dashboard_wants_the_token(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends(cluster, 5)
    cluster.ray_token = "f" * 64
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert audit(cluster) == 1  # nobody tells
    (tmp_path / "token").write_text("f" * 64 + "\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    ends(cluster, 5)
    assert audit(cluster) == 5
    said = capsys.readouterr()
    assert "f" * 64 not in said.out + said.err


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


def test_a_job_that_an_earlier_pod_left_is_followed(cluster: Cluster) -> None:
    left = night_job(TEMPLATE, NIGHT, OWNER)
    left["metadata"] |= {"uid": "u-0", "creationTimestamp": "2026-11-25T01:00:00Z"}
    done = copy.deepcopy(left)
    done["metadata"]["name"] += "x"
    done["status"] = {"jobDeploymentStatus": "Failed"}
    cluster.jobs |= {job["metadata"]["name"]: job for job in (done, left)}
    ends(cluster, 3)
    assert audit(cluster, owner=OWNER) == 3
    assert cluster.created == []
    assert f"GET {JOBS}/{left['metadata']['name']}" in cluster.asked
    assert audit(cluster, owner=Owner("another", "9")) == 3
    assert len(cluster.created) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suspend": False}, "is no template"),
        ({"entrypoint": ""}, "is no template"),
    ],
)
def test_what_is_no_template_is_refused(cluster: Cluster, change: dict[str, Any], message: str) -> None:
    cluster.jobs["line-audit"]["spec"] |= change
    with pytest.raises(AuditError, match=message) as error:
        audit(cluster)
    assert error.value.code == 2 and cluster.created == []


def test_a_missing_template_is_told(cluster: Cluster) -> None:
    del cluster.jobs["line-audit"]
    with pytest.raises(AuditError, match="no RayJob line-audit to take as a template") as error:
        audit(cluster)
    assert error.value.code == 2


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("moment", "night"),
    [
        ("2026-11-25T02:00+01:00", "2026-11-24"),  # a start in the small hours
        ("2026-11-25T11:59+01:00", "2026-11-24"),  # its last retry
        ("2026-11-25T12:00+01:00", "2026-11-25"),
        ("2026-11-25T23:30+01:00", "2026-11-25"),  # a start before midnight
        ("2026-11-26T00:10+01:00", "2026-11-25"),  # its retry after midnight
        ("2026-11-24T23:30+00:00", "2026-11-24"),  # 00:30 in Berlin
        ("2026-03-01T01:00+01:00", "2026-02-28"),
        ("2027-01-01T02:00+01:00", "2026-12-31"),
        ("2026-03-29T03:30+02:00", "2026-03-28"),  # the night in which the clocks go forward
    ],
)
def test_a_retry_after_midnight_is_the_same_night(moment: str, night: str) -> None:
    assert night_of(datetime.fromisoformat(moment), BERLIN, day_time(12)).isoformat() == night


@pytest.mark.parametrize("text", ["2026-11-31", "24.11.2026", "2026-11-24; rm -rf /", "yesterday", ""])
def test_a_date_is_a_date(text: str) -> None:
    with pytest.raises(AuditError) as error:
        given_date(text)
    assert error.value.code == 2


def test_zones_and_times_are_checked() -> None:
    assert time_zone("Europe/Berlin") == BERLIN and given_time("09:30") == day_time(9, 30)
    for wrong in (lambda: time_zone("Berlin"), lambda: time_zone("../etc/passwd"), lambda: given_time("25:00")):
        with pytest.raises(AuditError):
            wrong()


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
    expected = night_of(datetime.now(UTC), BERLIN, day_time(12))
    assert cluster.created[0]["spec"]["entrypoint"].endswith(f" --run-date {expected.isoformat()}")
    assert "Traceback" not in said
