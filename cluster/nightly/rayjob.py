"""The RayJob of one night, made from the template in the cluster."""

from __future__ import annotations

import copy
import secrets
from dataclasses import dataclass
from datetime import date
from typing import Any

from jobs.audit.exits import USAGE, AuditError

NAME_LENGTH = 47  # KubeRay appends to the name for pods and services
_OURS = "line-audit"


@dataclass(frozen=True)
class Owner:
    """The Job that this pod belongs to: its RayJobs are deleted with it, and a next pod of it finds them."""

    name: str
    uid: str

    @property
    def labels(self) -> dict[str, str]:
        """Borne by the RayJobs of this Job."""
        return {f"{_OURS}/job-uid": self.uid}


def night_job(template: dict[str, Any], night: date, owner: Owner | None) -> dict[str, Any]:
    """The RayJob that audits a night, under a name of its own.

    template: a RayJob that is suspended, so that it never runs itself; what it says of the cluster is the new one's,
    and ``--run-date`` is added to its command. Raises AuditError if it is no such template.
    """
    name, spec = template["metadata"]["name"], copy.deepcopy(template["spec"])
    if spec.pop("suspend", False) is not True or not spec.get("entrypoint"):
        raise AuditError(USAGE, f"RayJob {name} is no template: it must have an entrypoint and suspend: true")
    spec["entrypoint"] = f"{spec['entrypoint'].strip()} --run-date {night.isoformat()}"
    drawn = f"{name}-{night:%Y%m%d}-{secrets.token_hex(3)}"
    if len(drawn) > NAME_LENGTH:
        raise AuditError(
            USAGE, f"the name of RayJob {name} is too long: {drawn} has more than {NAME_LENGTH} characters"
        )
    labels = dict(template["metadata"].get("labels", {})) | {f"{_OURS}/run-date": night.isoformat()}
    metadata: dict[str, Any] = {"name": drawn, "labels": labels}
    if owner is not None:
        labels |= owner.labels
        metadata["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": owner.name, "uid": owner.uid}]
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def has_ended(job: dict[str, Any]) -> bool:
    """Whether KubeRay is done with a RayJob."""
    return state(job) in ("Complete", "Failed", "ValidationFailed")


def state(job: dict[str, Any]) -> str:
    """KubeRay's word for how far a RayJob is; "New" before it has any."""
    return str(job.get("status", {}).get("jobDeploymentStatus") or "New")
