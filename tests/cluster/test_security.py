"""Who may do what in the cluster: pods, roles, network, bucket."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.fields import leaves
from tests.cluster.iam import listed, statements
from tests.cluster.policies import Policies, selects

RAY_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "min-worker-port",
    "max-worker-port",
)


def test_pods_keep_to_the_restricted_standard(any_cluster: Cluster) -> None:
    (namespace,) = any_cluster.all("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    contexts = [any_cluster.ray["autoscalerOptions"]["securityContext"]]  # of the container that KubeRay adds
    for pod in any_cluster.pods().values():
        whole = pod["spec"]["securityContext"]
        assert whole["runAsNonRoot"] is True and whole["runAsUser"] != 0
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        assert all("hostPath" not in volume for volume in pod["spec"]["volumes"])
        contexts += [container["securityContext"] for container in pod["spec"]["containers"]]
        for container in pod["spec"]["containers"]:
            assert "memory" in container["resources"]["limits"]
    for context in contexts:
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_tokens_of_the_api_are_where_they_are_needed(any_cluster: Cluster) -> None:
    assert all(each["automountServiceAccountToken"] is False for each in any_cluster.all("ServiceAccount"))
    mounted = {name for name, pod in any_cluster.pods().items() if pod["spec"]["automountServiceAccountToken"]}
    assert mounted == {"head", "nightly"}


def test_the_nightly_role_is_what_the_pod_asks_for(any_cluster: Cluster) -> None:
    (role,), (binding,) = any_cluster.all("Role"), any_cluster.all("RoleBinding")
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "list", "delete"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == any_cluster.pods()["nightly"]["spec"]["serviceAccountName"]
    assert subject["namespace"] == binding["metadata"]["namespace"]


def test_no_secret_is_written_down(any_cluster: Cluster) -> None:
    assert any_cluster.all("Secret") == []
    assert any_cluster.ray["authOptions"] == {"mode": "token", "secretName": "line-audit-ray-token"}
    named = [(path, value) for each in any_cluster.resources for path, value in leaves(each)]
    for path, value in named:
        assert not str(value).startswith(("AKIA", "https://hooks.")), path
    env = [e for pod in any_cluster.pods().values() for c in pod["spec"]["containers"] for e in c["env"]]
    for each in env:
        if any(word in each["name"] for word in ("WEBHOOK", "PASSWORD", "SECRET", "_TOKEN")):
            assert "value" not in each or each["name"].endswith("_PATH")


OPERATOR = ("kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"})
PROMETHEUS = ("monitoring", {"app.kubernetes.io/name": "prometheus"})


def test_the_network_carries_ray_and_nothing_else(any_cluster: Cluster) -> None:
    policies, ray = Policies(any_cluster), any_cluster.ray
    workers = [group["groupName"] for group in ray["workerGroupSpecs"]]
    parameters = [group["rayStartParams"] for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"])]
    ports = {6379, 8265} | {int(each[name]) for each in parameters for name in RAY_PORTS}
    for source in ("head", *workers):
        for target in ("head", *workers):
            assert all(policies.between(source, target, port) for port in ports)
            assert not policies.between(source, target, 22) and not policies.between(source, target, 11000)
    assert policies.between("nightly", "head", 8265)
    for port in ports - {8265}:
        assert not policies.between("nightly", "head", port)
    for worker in workers:
        assert not policies.between("nightly", worker, 8265)
        assert not policies.between(worker, "nightly", 8265)
        assert not policies.into(*OPERATOR, worker, 8265)


def test_whoever_must_look_in_may(any_cluster: Cluster) -> None:
    policies = Policies(any_cluster)
    assert policies.into(*OPERATOR, "head", 8265)
    assert not policies.into(OPERATOR[0], {"app.kubernetes.io/name": "other"}, "head", 8265)
    assert not policies.into("default", OPERATOR[1], "head", 8265)
    for target in ("head", *(group["groupName"] for group in any_cluster.ray["workerGroupSpecs"])):
        ports = {e["name"]: e["containerPort"] for e in any_cluster.pods()[target]["spec"]["containers"][0]["ports"]}
        metrics = [port for name, port in ports.items() if name.endswith("metrics")]
        assert metrics and all(policies.into(*PROMETHEUS, target, port) for port in metrics)
        assert not any(policies.into("monitoring", {}, target, port) for port in metrics)
        assert not policies.into(*PROMETHEUS, target, 8265)
    assert not policies.into(*PROMETHEUS, "nightly", 8080)


def test_pods_reach_storage_and_not_the_credentials_of_their_machine(any_cluster: Cluster) -> None:
    policies = Policies(any_cluster)
    for name in any_cluster.pods():
        assert policies.outside(name, "52.219.170.1", 443)
        assert not policies.outside(name, "52.219.170.1", 80)
        assert not policies.outside(name, "169.254.169.254", 443)


def test_only_who_asks_the_api_reaches_its_port(any_cluster: Cluster) -> None:
    policies = Policies(any_cluster)
    asking = {name for name in any_cluster.pods() if policies.outside(name, "10.100.0.1", 6443)}
    assert asking == {"head", "nightly"}


def test_the_operator_of_prometheus_finds_the_ports_and_names_the_jobs(production: Cluster) -> None:
    found: dict[str, set[str]] = {}
    for monitor in production.all("PodMonitor"):
        for pod, template in production.pods().items():
            if selects(monitor["spec"]["selector"], template["metadata"]["labels"]):
                named = {port["name"] for port in template["spec"]["containers"][0].get("ports", [])}
                for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                    (job,) = (e["replacement"] for e in endpoint["relabelings"] if e["targetLabel"] == "job")
                    if endpoint["port"] in named:
                        found.setdefault(job, set()).add(pod)
    assert found == {
        "ray": {"head", "load", "models-spot", "models-on-demand"},
        "line-audit-driver": {"head"},
        "line-audit-exporter": {"exporter"},
    }


def test_no_drain_takes_a_head(production: Cluster) -> None:
    (budget,) = production.all("PodDisruptionBudget")
    chosen = [n for n, p in production.pods().items() if selects(budget["spec"]["selector"], p["metadata"]["labels"])]
    assert chosen == ["head"]
    assert budget["spec"]["minAvailable"] >= 100  # of as many clusters as there may be at once


def test_the_bucket_is_written_below_the_output_only() -> None:
    for statement in statements("audit"):
        actions, places = set(listed(statement["Action"])), listed(statement["Resource"])
        assert statement["Effect"] == "Allow" and not any("*" in action for action in actions)
        if actions & {"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}:
            assert places == ["arn:aws:s3:::plant/audit/*"]
        if "s3:ListBucket" in actions:
            assert places == ["arn:aws:s3:::plant"] and actions == {"s3:ListBucket"}
            prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
            assert {each.partition("/")[0] for each in prefixes} == {"images", "manifests", "models", "audit"}
    (nightly,) = statements("nightly")
    assert nightly["Action"] == "s3:GetObject"
    assert nightly["Resource"] == "arn:aws:s3:::plant/audit/runs/*/run.json"


@pytest.mark.parametrize(
    ("trust", "role", "accounts"),
    [
        ("trust-eks", "line-audit", {"line-audit-head", "line-audit-worker"}),
        ("trust-eks-nightly", "line-audit-nightly", {"line-audit-nightly"}),
        ("trust-eks-exporter", "line-audit-exporter", {"line-audit-exporter"}),
    ],
)
def test_roles_are_for_the_accounts_that_name_them(
    production: Cluster, trust: str, role: str, accounts: set[str]
) -> None:
    (statement,) = statements(trust)
    conditions = statement["Condition"]["StringEquals"]
    (subjects,) = (value for key, value in conditions.items() if key.endswith(":sub"))
    (audience,) = (value for key, value in conditions.items() if key.endswith(":aud"))
    assert set(subjects) == {f"system:serviceaccount:line-audit:{name}" for name in accounts}
    assert audience == "sts.amazonaws.com"
    named = {
        each["metadata"]["name"]
        for each in production.all("ServiceAccount")
        if each["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith(f":role/{role}")
    }
    assert named == accounts
