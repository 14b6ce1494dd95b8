"""What the network policies of a cluster let through, as Kubernetes reads them."""

from __future__ import annotations

import ipaddress
from typing import Any

from tests.cluster.conftest import Cluster


class Policies:
    """What the network policies of a cluster let through."""

    def __init__(self, cluster: Cluster):
        self.policies = [each["spec"] for each in cluster.all("NetworkPolicy")]
        (namespace,) = cluster.all("Namespace")
        self.namespace = namespace["metadata"]["name"]
        self.pods = {name: pod["metadata"]["labels"] for name, pod in cluster.pods().items()}

    def between(self, source: str, target: str, port: int) -> bool:
        """Whether one pod reaches another: its policies must let it out, and the other's let it in."""
        out = self._allowed("egress", self.pods[source], self.namespace, self.pods[target], port)
        return out and self.into(self.namespace, self.pods[source], target, port)

    def into(self, namespace: str, labels: dict[str, str], target: str, port: int) -> bool:
        """Whether a pod of a namespace is let in."""
        return self._allowed("ingress", self.pods[target], namespace, labels, port)

    def reaches(self, source: str, namespace: str, port: int) -> bool:
        """Whether a pod is let out to any pod of a namespace."""
        return self._allowed("egress", self.pods[source], namespace, {}, port)

    def outside(self, source: str, address: str, port: int) -> bool:
        """Whether a pod reaches an address outside of the cluster."""
        for policy in self._of(self.pods[source], "Egress"):
            for rule in policy.get("egress", []):
                for peer in rule["to"]:
                    block = peer.get("ipBlock")
                    if block and ipaddress.ip_address(address) in ipaddress.ip_network(block["cidr"]):
                        left_out = any(
                            ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in block["except"]
                        )
                        if not left_out and _has_port(rule, port):
                            return True
        return False

    def _of(self, labels: dict[str, str], way: str) -> list[dict[str, Any]]:
        return [p for p in self.policies if way in p["policyTypes"] and selects(p["podSelector"], labels)]

    def _allowed(
        self, way: str, labels: dict[str, str], namespace: str, peer_labels: dict[str, str], port: int
    ) -> bool:
        policies = self._of(labels, way.capitalize())
        assert policies, "no policy selects this pod, so anything may pass"
        side = "from" if way == "ingress" else "to"
        return any(
            _has_port(rule, port) and any(self._is_peer(peer, namespace, peer_labels) for peer in rule[side])
            for policy in policies
            for rule in policy.get(way, [])
        )

    def _is_peer(self, peer: dict[str, Any], namespace: str, labels: dict[str, str]) -> bool:
        if "ipBlock" in peer:
            return False
        home = {"kubernetes.io/metadata.name": namespace}
        here = selects(peer["namespaceSelector"], home) if "namespaceSelector" in peer else namespace == self.namespace
        return here and selects(peer.get("podSelector", {}), labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector of Kubernetes selects what has these labels."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In", each
        if labels.get(each["key"]) not in each["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _has_port(rule: dict[str, Any], port: int) -> bool:
    return any(each["port"] <= port <= each.get("endPort", each["port"]) for each in rule["ports"])
