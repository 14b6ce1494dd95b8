"""The folders of cluster/kubernetes as Kustomize renders them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import fake_kubernetes
from tests.cluster.audits import TEMPLATE
from tests.cluster.kustomize import Resource, build

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "cluster" / "kubernetes"
FOLDERS = ("overlays/dev", "overlays/production", "standing")


@cache
def rendered(folder: str) -> tuple[Resource, ...]:
    """All resources of a folder; not to be changed."""
    return tuple(build(KUBERNETES / folder))


class Cluster:
    """The resources of one folder, by kind and name."""

    def __init__(self, folder: str):
        self.folder, self.resources = folder, rendered(folder)

    def one(self, kind: str, name: str) -> Resource:
        """The only resource of that kind and name."""
        (found,) = (each for each in self.resources if each["kind"] == kind and each["metadata"]["name"] == name)
        return found

    def all(self, kind: str) -> list[Resource]:
        """All resources of a kind."""
        return [each for each in self.resources if each["kind"] == kind]

    @property
    def ray(self) -> dict[str, Any]:
        """The specification of the Ray cluster of an audit."""
        return dict(self.one("RayJob", "line-audit")["spec"]["rayClusterSpec"])

    @property
    def job(self) -> dict[str, Any]:
        """The specification of the Job that the CronJob makes."""
        return dict(self.one("CronJob", "line-audit-nightly")["spec"]["jobTemplate"]["spec"])

    @property
    def exporter(self) -> dict[str, Any]:
        """The specification of the Deployment of the exporter."""
        return dict(self.one("Deployment", "line-audit-exporter")["spec"])

    def pods(self) -> dict[str, dict[str, Any]]:
        """The pod templates of head, worker groups, nightly pod and exporter, with the labels that KubeRay adds."""
        ray, others = self.ray, {"nightly": self.job["template"], "exporter": self.exporter["template"]}
        found = {"head": ray["headGroupSpec"]["template"], **others}
        found |= {group["groupName"]: group["template"] for group in ray["workerGroupSpecs"]}
        for name, template in found.items():
            labels = dict(template["metadata"]["labels"])
            if name not in others:
                labels |= {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head" if name == "head" else "worker"}
            found[name] = {"metadata": {**template["metadata"], "labels": labels}, "spec": template["spec"]}
        return found


@pytest.fixture(params=FOLDERS)
def any_cluster(request: pytest.FixtureRequest) -> Cluster:
    return Cluster(request.param)


@pytest.fixture
def production() -> Cluster:
    return Cluster("overlays/production")


@pytest.fixture
def dev() -> Cluster:
    return Cluster("overlays/dev")


@pytest.fixture
def cluster() -> Iterator[fake_kubernetes.Cluster]:
    """An API on loopback with a template."""
    with fake_kubernetes.kubernetes(copy.deepcopy(TEMPLATE)) as found:
        yield found
