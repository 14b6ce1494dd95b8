"""What the Kubernetes files say: fields, references between them, pools, retries, deadlines."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
import typer
import yaml

from cluster.nightly.__main__ import app
from cluster.nightly.dates import given_time
from cluster.nightly.rayjob import night_job
from tests.cluster.conftest import KUBERNETES, ROOT, Cluster
from tests.cluster.fields import RAY_JOB, SPECS, leaves, unknown
from tests.cluster.kustomize import build
from tests.cluster.quantities import quantity

# Made by people before the first night, README.md there says how; key by name.
SECRETS = {"line-audit-ray-token": "auth_token", "line-audit-notifications": "webhook"}
POOLS = {"load": "load", "models": "models", "models-spot": "models", "models-on-demand": "models"}


def test_every_field_is_one_that_exists(any_cluster: Cluster) -> None:
    for each in [*any_cluster.resources, *build(KUBERNETES / "karpenter")]:
        if "spec" in each:
            assert unknown(each["spec"], SPECS[each["kind"]]) == [], each["metadata"]["name"]


def test_a_misspelt_field_is_found() -> None:
    assert unknown({"suspend": True, "ttlSecondAfterFinished": 1}, RAY_JOB) == ["ttlSecondAfterFinished: 1"]
    assert unknown({"backoffLimit": "0"}, RAY_JOB) == ["backoffLimit: '0'"]
    assert unknown({"rayClusterSpec": {"headGroupSpec": {"rayStartParams": {"num-cpus": 0}}}}, RAY_JOB) != []


def test_names_are_unique_and_everything_is_in_one_namespace(any_cluster: Cluster) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in any_cluster.resources]
    assert len(set(names)) == len(names)
    (namespace,) = any_cluster.all("Namespace")
    others = {each["metadata"].get("namespace") for each in any_cluster.resources if each["kind"] != "Namespace"}
    assert others == {namespace["metadata"]["name"]}


def test_what_is_referred_to_is_there(any_cluster: Cluster) -> None:
    maps = {each["metadata"]["name"]: each["data"] for each in any_cluster.all("ConfigMap")}
    accounts = {each["metadata"]["name"] for each in any_cluster.all("ServiceAccount")}
    readme = (KUBERNETES / "README.md").read_text()
    for path, value in (leaf for each in any_cluster.resources for leaf in leaves(each.get("spec", {}))):
        if path.endswith(("configMap.name", "configMapRef.name")):
            assert value in maps
        elif path.endswith(("secretKeyRef.name", "secretName")):
            assert re.search(rf"create secret generic {value}\b.*--from-(literal|file)={SECRETS[value]}\b", readme)
        elif path.endswith("serviceAccountName"):
            assert value in accounts
    for pod in any_cluster.pods().values():
        volumes = {each["name"] for each in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} <= volumes
    for reference in leaves([pod["spec"] for pod in any_cluster.pods().values()]):
        if reference[0].endswith("secretKeyRef.key"):
            assert reference[1] in SECRETS.values()


def test_one_image_runs_everywhere_with_the_ray_of_the_lock_file(any_cluster: Cluster) -> None:
    images = {value for each in any_cluster.resources for path, value in leaves(each) if path.endswith("].image")}
    assert len(images) == 1
    assert not images.pop().endswith((":latest", "line-audit"))
    (locked,) = re.findall(r"^ray(?:\[.*?\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert any_cluster.ray["rayVersion"] == locked


def test_the_head_does_no_work_and_workers_say_their_pool(any_cluster: Cluster) -> None:
    ray = any_cluster.ray
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert ray["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    assert "labels" not in ray["headGroupSpec"]
    pools = {group["groupName"]: group["labels"]["line-audit/pool"] for group in ray["workerGroupSpecs"]}
    assert pools == {name: POOLS[name] for name in pools}
    assert set(pools.values()) == {"load", "models"}
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in ray["workerGroupSpecs"])
    # KubeRay refuses a group that has labels or resources here too.
    for group in [ray["headGroupSpec"], *ray["workerGroupSpecs"]]:
        assert not {"labels", "resources"} & set(group["rayStartParams"])


def test_production_prefers_spot_and_can_do_without(production: Cluster) -> None:
    groups = {group["groupName"]: group for group in production.ray["workerGroupSpecs"]}
    spot, demand = groups["models-spot"], groups["models-on-demand"]
    assert spot["priority"] > demand["priority"] and production.ray["autoscalerOptions"]["version"] == "v2"
    assert spot["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
    assert demand["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"] == "on-demand"
    for group in (spot, demand):
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # A spot node that never comes must be given up while the audit waits, and early enough for one on demand to come.
    env = {each["name"]: each["value"] for each in production.ray["autoscalerOptions"]["env"]}
    given_up = int(env["RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"])
    assert 600 <= given_up < int(env["RAY_AUTOSCALER_AVAILABILITY_RECOVERY_S"])
    assert options(production)["node_timeout"] >= given_up + 900


def machines(pool: str) -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """Of a pool for Karpenter, the values that labels of its machines have, and the taints."""
    pools = {each["metadata"]["name"]: each["spec"]["template"] for each in build(KUBERNETES / "karpenter")}
    found = pools[f"line-audit-{pool}"]
    values = {each["key"]: each["values"] for each in found["spec"]["requirements"] if each["operator"] == "In"}
    return values | {key: [value] for key, value in found["metadata"]["labels"].items()}, found["spec"]["taints"]


def test_every_pod_finds_machines(production: Cluster) -> None:
    pools = {group["groupName"]: group["labels"]["line-audit/pool"] for group in production.ray["workerGroupSpecs"]}
    for name, pool in {**pools, "head": "head", "nightly": "head"}.items():
        pod, (offered, taints) = production.pods()[name]["spec"], machines(pool)
        assert pod["nodeSelector"]["line-audit/pool"] == pool
        for key, value in pod["nodeSelector"].items():
            assert value in offered[key], (name, key)
        for taint in taints:
            assert any(
                each["key"] == taint["key"]
                and each["effect"] == taint["effect"]
                and (each["operator"] == "Exists" or each["value"] == taint["value"])
                for each in pod["tolerations"]
            ), (name, taint)


def test_machines_of_heads_are_not_taken_away_and_gpus_let_their_device_plugin_in() -> None:
    assert machines("head")[0]["karpenter.sh/capacity-type"] == ["on-demand"]
    assert {taint["key"] for taint in machines("models")[1]} == {"nvidia.com/gpu"}  # what the plugin tolerates


def test_a_cluster_without_gpus_needs_no_special_machines(dev: Cluster) -> None:
    text = yaml.safe_dump(list(dev.resources))
    assert "nvidia" not in text and "karpenter.sh/capacity" not in text
    for name, pod in dev.pods().items():
        assert not pod["spec"].get("nodeSelector") and not pod["spec"].get("tolerations"), name
    assert dev.one("CronJob", "line-audit-nightly")["spec"]["suspend"] is True
    assert options(dev)["device"] == "cpu"


def test_a_standing_cluster_is_that_of_an_audit(any_cluster: Cluster) -> None:
    for each in any_cluster.all("RayCluster"):
        assert each["spec"] == any_cluster.ray
    assert bool(any_cluster.all("RayCluster")) == (any_cluster.folder != "overlays/production")


def options(cluster: Cluster) -> dict[str, Any]:
    return dict(yaml.safe_load(cluster.one("ConfigMap", "line-audit")["data"]["audit.yaml"]))


def test_the_run_asks_for_no_more_gpus_than_there_may_be(any_cluster: Cluster) -> None:
    for group in any_cluster.ray["workerGroupSpecs"]:
        if group["labels"]["line-audit/pool"] == "models":
            gpus = group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "1")
            assert group["maxReplicas"] * int(gpus) >= options(any_cluster)["extractors"]


def test_the_options_of_the_audit_are_options_of_the_audit(any_cluster: Cluster) -> None:
    from jobs.cli import app as line_audit

    command = typer.main.get_command(line_audit).commands["audit"]  # type: ignore[attr-defined]
    known = {each.name for each in command.params}
    if "config" not in known:
        pytest.skip("audit reads no file of options in this version")
    assert set(options(any_cluster)) - known == set()
    program, verb, flag, path = any_cluster.one("RayJob", "line-audit")["spec"]["entrypoint"].split()
    assert (program, verb, flag) == ("line-audit", "audit", "--config")
    head = any_cluster.pods()["head"]["spec"]
    (mount,) = (e for e in head["containers"][0]["volumeMounts"] if e["name"] == "audit")
    assert path == f"{mount['mountPath']}/audit.yaml"


def test_memory_holds_the_object_store(any_cluster: Cluster) -> None:
    ray = any_cluster.ray
    for group in [ray["headGroupSpec"], *ray["workerGroupSpecs"]]:
        spec = group["template"]["spec"]
        (shm,) = (each["emptyDir"] for each in spec["volumes"] if each["name"] == "shm")
        store, limits = (
            int(group["rayStartParams"]["object-store-memory"]),
            spec["containers"][0]["resources"]["limits"],
        )
        assert shm["medium"] == "Memory"
        assert store < quantity(shm["sizeLimit"]) <= quantity(limits["memory"]) / 2
        for name, request in spec["containers"][0]["resources"]["requests"].items():
            assert quantity(request) <= quantity(limits.get(name, request))


def test_a_night_can_be_made_of_the_template(any_cluster: Cluster) -> None:
    template = any_cluster.one("RayJob", "line-audit")
    body = night_job(template, date(2026, 11, 24), None)
    assert unknown(body["spec"], RAY_JOB) == [] and "suspend" not in body["spec"]
    assert body["spec"]["entrypoint"].endswith("audit.yaml --run-date 2026-11-24")


def test_the_nightly_pod_is_called_right(any_cluster: Cluster) -> None:
    (container,) = any_cluster.pods()["nightly"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "cluster.nightly"]
    context = typer.main.get_command(app).make_context("nightly", list(container["args"]))
    assert context.params["template"] == any_cluster.one("RayJob", "line-audit")["metadata"]["name"]
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    env = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    for path in (str(context.params["config"]), env["RAY_AUTH_TOKEN_PATH"]):
        assert path.rpartition("/")[0] in mounts
    assert env["RAY_AUTH_TOKEN_PATH"].endswith("/auth_token")
    assert env["LINE_AUDIT_TIME_ZONE"] == any_cluster.one("CronJob", "line-audit-nightly")["spec"]["timeZone"]
    assert env["JOB_UID"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/controller-uid']"


def test_only_exit_codes_that_may_be_retried_are(any_cluster: Cluster) -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    never = {int(code) for code, retry in rows if retry in ("no", "after repair only")}
    assert never == {0, 2, 3, 5}
    fail, ignore = any_cluster.job["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob" and fail["onExitCodes"]["operator"] == "In"
    assert set(fail["onExitCodes"]["values"]) == never - {0}
    (container,) = any_cluster.job["template"]["spec"]["containers"]
    assert fail["onExitCodes"]["containerName"] == container["name"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert any_cluster.job["template"]["spec"]["restartPolicy"] == "Never"  # the policy wants it
    assert any_cluster.job["backoffLimit"] == 3
    assert any_cluster.one("RayJob", "line-audit")["spec"]["backoffLimit"] == 0


def test_a_night_ends_before_it_could_be_taken_for_the_next(any_cluster: Cluster) -> None:
    cron, audit = (any_cluster.one(*e)["spec"] for e in (("CronJob", "line-audit-nightly"), ("RayJob", "line-audit")))
    assert cron["concurrencyPolicy"] == "Forbid"
    minute, hour, *days = cron["schedule"].split()
    assert days == ["*", "*", "*"]
    assert hour != "2"  # the hour that clocks leave out in spring
    (container,) = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (ends,) = (each.partition("=")[2] for each in container["args"] if each.startswith("--night-ends="))
    seconds = (
        (int(hour) * 60 + int(minute)) * 60 + cron["startingDeadlineSeconds"] + any_cluster.job["activeDeadlineSeconds"]
    )
    noon = given_time(ends)
    assert seconds + 3600 < (noon.hour * 60 + noon.minute) * 60  # in spring an hour is missing
    assert (
        audit["preRunningDeadlineSeconds"] < audit["activeDeadlineSeconds"] < any_cluster.job["activeDeadlineSeconds"]
    )
    assert audit["shutdownAfterJobFinishes"] is True and 60 <= audit["ttlSecondsAfterFinished"] <= 600


def test_a_stopped_audit_has_time_to_say_so(any_cluster: Cluster) -> None:
    head = any_cluster.pods()["head"]["spec"]
    env = {each["name"]: each.get("value") for each in head["containers"][0]["env"]}
    assert int(env["RAY_JOB_STOP_WAIT_TIME_S"]) < head["terminationGracePeriodSeconds"]
    for name, pod in any_cluster.pods().items():
        if name not in ("head", "nightly", "exporter"):
            worker = pod["spec"]["containers"][0]
            assert pod["spec"]["terminationGracePeriodSeconds"] <= 120  # the warning before a spot node goes
            assert {"name": "RAY_idle_worker_killing_time_threshold_ms", "value": "600000"} in worker["env"]
