"""The fields of Kubernetes and KubeRay that our files use, with their types, as of KubeRay 1.7 and Kubernetes 1.33.

A misspelt field is dropped by the API server without a word; here it is an error. ``[]`` is an element of a list, ``*``
any key of a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

QUANTITY = str

PROBE: dict[str, type] = {
    "httpGet.path": str,
    "httpGet.port": str,  # by its name
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
CONTAINER: dict[str, type] = {
    "name": str,
    "image": str,
    "imagePullPolicy": str,
    "command[]": str,
    "args[]": str,
    "env[].name": str,
    "env[].value": str,
    "env[].valueFrom.secretKeyRef.name": str,
    "env[].valueFrom.secretKeyRef.key": str,
    "env[].valueFrom.secretKeyRef.optional": bool,
    "env[].valueFrom.fieldRef.fieldPath": str,
    "envFrom[].configMapRef.name": str,
    "ports[].containerPort": int,
    "ports[].name": str,
    "resources.requests.*": QUANTITY,
    "resources.limits.*": QUANTITY,
    "lifecycle.preStop.exec.command[]": str,
    "volumeMounts[].name": str,
    "volumeMounts[].mountPath": str,
    "volumeMounts[].readOnly": bool,
    **{f"{probe}Probe.{key}": kind for probe in ("readiness", "liveness") for key, kind in PROBE.items()},
    "securityContext.allowPrivilegeEscalation": bool,
    "securityContext.readOnlyRootFilesystem": bool,
    "securityContext.capabilities.drop[]": str,
}
SPREAD: dict[str, type] = {
    "maxSkew": int,
    "topologyKey": str,
    "whenUnsatisfiable": str,
    "labelSelector.matchLabels.*": str,
}
NEAR = "affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[]"
NOT_ON = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[]"
POD: dict[str, type] = {
    "restartPolicy": str,
    "serviceAccountName": str,
    "automountServiceAccountToken": bool,
    "enableServiceLinks": bool,
    "terminationGracePeriodSeconds": int,
    "securityContext.runAsNonRoot": bool,
    "securityContext.runAsUser": int,
    "securityContext.runAsGroup": int,
    "securityContext.fsGroup": int,
    "securityContext.seccompProfile.type": str,
    "nodeSelector.*": str,
    "tolerations[].key": str,
    "tolerations[].operator": str,
    "tolerations[].value": str,
    "tolerations[].effect": str,
    f"{NEAR}.weight": int,
    f"{NEAR}.podAffinityTerm.topologyKey": str,
    f"{NEAR}.podAffinityTerm.labelSelector.matchLabels.*": str,
    **{f"{NOT_ON}.{key}": str for key in ("key", "operator", "values[]")},
    **{f"topologySpreadConstraints[].{key}": kind for key, kind in SPREAD.items()},
    **{f"containers[].{key}": kind for key, kind in CONTAINER.items()},
    "volumes[].name": str,
    "volumes[].configMap.name": str,
    "volumes[].secret.secretName": str,
    "volumes[].secret.defaultMode": int,
    "volumes[].emptyDir.medium": str,
    "volumes[].emptyDir.sizeLimit": QUANTITY,
}
TEMPLATE: dict[str, type] = {
    "metadata.labels.*": str,
    "metadata.annotations.*": str,
    **{f"spec.{key}": kind for key, kind in POD.items()},
}
RAY_CLUSTER: dict[str, type] = {
    "rayVersion": str,
    "authOptions.mode": str,
    "authOptions.secretName": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions.version": str,
    "autoscalerOptions.upscalingMode": str,
    "autoscalerOptions.idleTimeoutSeconds": int,
    **{
        f"autoscalerOptions.{key}": kind
        for key, kind in CONTAINER.items()
        if key.startswith(("env[]", "resources", "securityContext", "volumeMounts"))
    },
    "headGroupSpec.rayStartParams.*": str,
    **{f"headGroupSpec.template.{key}": kind for key, kind in TEMPLATE.items()},
    "workerGroupSpecs[].groupName": str,
    "workerGroupSpecs[].priority": int,
    "workerGroupSpecs[].replicas": int,
    "workerGroupSpecs[].minReplicas": int,
    "workerGroupSpecs[].maxReplicas": int,
    "workerGroupSpecs[].labels.*": str,
    "workerGroupSpecs[].rayStartParams.*": str,
    **{f"workerGroupSpecs[].template.{key}": kind for key, kind in TEMPLATE.items()},
}
RAY_JOB: dict[str, type] = {
    "suspend": bool,
    "submissionMode": str,
    "entrypoint": str,
    "backoffLimit": int,
    "preRunningDeadlineSeconds": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    **{f"rayClusterSpec.{key}": kind for key, kind in RAY_CLUSTER.items()},
}
RULE = "jobTemplate.spec.podFailurePolicy.rules[]"
CRON_JOB: dict[str, type] = {
    "schedule": str,
    "timeZone": str,
    "suspend": bool,
    "concurrencyPolicy": str,
    "startingDeadlineSeconds": int,
    "successfulJobsHistoryLimit": int,
    "failedJobsHistoryLimit": int,
    "jobTemplate.metadata.labels.*": str,
    "jobTemplate.spec.activeDeadlineSeconds": int,
    "jobTemplate.spec.ttlSecondsAfterFinished": int,
    "jobTemplate.spec.backoffLimit": int,
    f"{RULE}.action": str,
    f"{RULE}.onExitCodes.containerName": str,
    f"{RULE}.onExitCodes.operator": str,
    f"{RULE}.onExitCodes.values[]": int,
    f"{RULE}.onPodConditions[].type": str,
    f"{RULE}.onPodConditions[].status": str,
    **{f"jobTemplate.spec.template.{key}": kind for key, kind in TEMPLATE.items()},
}
DEPLOYMENT: dict[str, type] = {
    "replicas": int,
    "strategy.type": str,
    "selector.matchLabels.*": str,
    **{f"template.{key}": kind for key, kind in TEMPLATE.items()},
}
PEER: dict[str, type] = {
    "namespaceSelector.matchLabels.*": str,
    "podSelector.matchLabels.*": str,
    "ipBlock.cidr": str,
    "ipBlock.except[]": str,
}
PORT: dict[str, type] = {"protocol": str, "port": int, "endPort": int}
NETWORK_POLICY: dict[str, type] = {
    "podSelector.matchLabels.*": str,
    **{f"podSelector.matchExpressions[].{key}": str for key in ("key", "operator", "values[]")},
    "policyTypes[]": str,
    **{f"ingress[].from[].{key}": kind for key, kind in PEER.items()},
    **{f"egress[].to[].{key}": kind for key, kind in PEER.items()},
    **{f"{way}[].ports[].{key}": kind for way in ("ingress", "egress") for key, kind in PORT.items()},
}
SPECS = {
    "RayJob": RAY_JOB,
    "RayCluster": RAY_CLUSTER,
    "CronJob": CRON_JOB,
    "Deployment": DEPLOYMENT,
    "NetworkPolicy": NETWORK_POLICY,
    "PodDisruptionBudget": {"minAvailable": int, "selector.matchLabels.*": str},
    "PodMonitor": {
        "selector.matchLabels.*": str,
        "podTargetLabels[]": str,
        "podMetricsEndpoints[].port": str,
        "podMetricsEndpoints[].interval": str,
        "podMetricsEndpoints[].relabelings[].targetLabel": str,
        "podMetricsEndpoints[].relabelings[].replacement": str,
    },
    "NodePool": {
        "template.metadata.labels.*": str,
        "template.spec.nodeClassRef.group": str,
        "template.spec.nodeClassRef.kind": str,
        "template.spec.nodeClassRef.name": str,
        "template.spec.taints[].key": str,
        "template.spec.taints[].value": str,
        "template.spec.taints[].effect": str,
        "template.spec.requirements[].key": str,
        "template.spec.requirements[].operator": str,
        "template.spec.requirements[].values[]": str,
        "template.spec.expireAfter": str,
        "limits.*": QUANTITY,
        "disruption.consolidationPolicy": str,
        "disruption.consolidateAfter": str,
    },
}


def unknown(spec: Any, known: dict[str, type]) -> list[str]:
    """The fields of a specification that are not in the list, or of another type."""
    return [
        f"{path}: {value!r}"
        for path, value in leaves(spec)
        if (kind := known.get(path) or known.get(_any_key(path, known))) is None or type(value) is not kind
    ]


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything in a document that is neither a map nor a list. Empty ones have nothing."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value, f"{path}[]")
    else:
        yield path, node


def _any_key(path: str, known: dict[str, type]) -> str:
    """The path with ``*`` for the key of a map, which may have points in it."""
    maps = [each[:-1] for each in known if each.endswith(".*")]
    return next((f"{each}*" for each in maps if path.startswith(each)), "")
