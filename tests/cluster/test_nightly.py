"""The nightly pod against an API on loopback: what it creates, and how it ends."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.nightly.rayjob import Owner, night_job
from jobs.audit.exits import MEANING, AuditError
from tests.cluster.audits import NIGHT, OWNER, TEMPLATE, audit, ends
from tests.cluster.fake_kubernetes import JOBS, Cluster


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
