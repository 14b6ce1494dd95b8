"""Nights on the API on loopback, with a clock that runs only while somebody waits."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from cluster.nightly.api import KubernetesApi
from cluster.nightly.night import Clock, Night, audit_night
from cluster.nightly.rayjob import Owner
from tests.cluster.fake_kubernetes import Cluster

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


class Hours:
    """Seconds that pass only while somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


def audit(cluster: Cluster, account: Path | None = None, **told: Any) -> int:
    """Audit the night; returns the exit code."""
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
