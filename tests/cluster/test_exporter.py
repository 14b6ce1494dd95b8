"""The exporter in the cluster: how it is called, who finds it, what it reaches, and what its role lets it read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml
from s3fs import S3FileSystem

from jobs.cli import app
from jobs.demo.server import s3_server
from jobs.monitoring.deadline import Deadline
from jobs.monitoring.exporter import Exporter, Site
from jobs.monitoring.nights import Reader
from jobs.report.make import make_report, write_report
from jobs.storage import delete, write_bytes
from tests.cluster.conftest import ROOT, Cluster
from tests.cluster.iam import enforced
from tests.cluster.policies import Policies, selects
from tests.cluster.quantities import quantity
from tests.nights import Night, write_night

PROMETHEUS = ("monitoring", {"app.kubernetes.io/name": "prometheus"})
PORT = 9465
MEASURED = 215 * 2**20  # resident, with ten nights on S3


def container(cluster: Cluster) -> dict[str, Any]:
    (found,) = cluster.pods()["exporter"]["spec"]["containers"]
    return dict(found)


def test_there_is_one_and_never_two(any_cluster: Cluster) -> None:
    spec = any_cluster.exporter
    assert spec["replicas"] == 1 and spec["strategy"] == {"type": "Recreate"}
    chosen = [name for name, pod in any_cluster.pods().items() if selects(spec["selector"], pod["metadata"]["labels"])]
    assert chosen == ["exporter"]


def test_it_is_called_right(any_cluster: Cluster) -> None:
    called = [*container(any_cluster)["command"], *container(any_cluster)["args"]]
    assert called[:2] == ["line-audit", "exporter"]
    exporter = typer.main.get_command(app).commands["exporter"]  # type: ignore[attr-defined]
    options = exporter.make_context("exporter", called[2:]).params
    audit = yaml.safe_load(any_cluster.one("ConfigMap", "line-audit")["data"]["audit.yaml"])
    assert options["output"] == audit["output"]
    assert options["name"] == [audit.get("name", "audit")]
    assert options["host"] == "0.0.0.0" and options["port"] == PORT
    cron = any_cluster.one("CronJob", "line-audit-nightly")["spec"]
    assert options["time_zone"] == cron["timeZone"]
    deadline = Deadline.parse(options["deadline"], options["time_zone"]).at
    minute, hour, *_ = (int(each) for each in cron["schedule"].split()[:2])
    assert (hour, minute) < (deadline.hour, deadline.minute)  # so that a night begins and ends before one deadline


def test_it_has_what_it_takes(any_cluster: Cluster) -> None:
    resources = container(any_cluster)["resources"]
    assert quantity(resources["requests"]["memory"]) > MEASURED
    assert quantity(resources["limits"]["memory"]) >= 2 * MEASURED


def test_probes_ask_for_the_metrics(any_cluster: Cluster) -> None:
    (port,) = container(any_cluster)["ports"]
    assert port == {"containerPort": PORT, "name": "metrics"}
    for probe in ("readinessProbe", "livenessProbe"):
        assert container(any_cluster)[probe]["httpGet"] == {"path": "/metrics", "port": port["name"]}
    living = container(any_cluster)["livenessProbe"]
    assert living["initialDelaySeconds"] + living["periodSeconds"] * (living["failureThreshold"] - 1) >= 120


def test_only_prometheus_is_let_in_and_only_to_storage_and_names_is_let_out(any_cluster: Cluster) -> None:
    policies, pods = Policies(any_cluster), any_cluster.pods()
    assert policies.into(*PROMETHEUS, "exporter", PORT)
    assert not policies.into("monitoring", {}, "exporter", PORT)
    assert not policies.into("default", PROMETHEUS[1], "exporter", PORT)
    assert not policies.into(*PROMETHEUS, "exporter", 8080)
    for name in pods:
        assert not policies.between(name, "exporter", PORT)
        assert not any(policies.between("exporter", name, port) for port in (443, 6379, 8265, 9464))
    assert policies.reaches("exporter", "kube-system", 53)
    assert policies.outside("exporter", "52.219.170.1", 443)
    assert not any(policies.outside("exporter", "52.219.170.1", port) for port in (53, 80, 6443))


def scraped(cluster: Cluster) -> dict[str, set[tuple[str, int]]]:
    """By job, the pods and ports that a Prometheus with our configuration scrapes."""
    config = yaml.safe_load((ROOT / "cluster" / "monitoring" / "prometheus-kubernetes.yaml").read_text())
    found: dict[str, set[tuple[str, int]]] = {}
    for job in config["scrape_configs"]:
        for name, pod in cluster.pods().items():
            cleaned = {re.sub(r"\W", "_", key): value for key, value in pod["metadata"]["labels"].items()}
            if name not in ("nightly", "exporter"):
                cleaned["ray_io_cluster"] = "line-audit-x"  # of KubeRay
            for port in pod["spec"]["containers"][0].get("ports", []):
                labels = {f"__meta_kubernetes_pod_label_{key}": value for key, value in cleaned.items()}
                labels["__meta_kubernetes_pod_container_port_name"] = port["name"]
                keeps = [rule for rule in job["relabel_configs"] if rule.get("action") == "keep"]
                texts = [(rule, ";".join(labels.get(each, "") for each in rule["source_labels"])) for rule in keeps]
                if all(re.fullmatch(rule["regex"], text) for rule, text in texts):
                    found.setdefault(job["job_name"], set()).add((name, port["containerPort"]))
    return found


def test_prometheus_finds_it(any_cluster: Cluster) -> None:
    found = scraped(any_cluster)
    assert found["kubernetes-exporter"] == {("exporter", PORT)}
    assert found["kubernetes-driver"] == {("head", 9464)}
    workers = {group["groupName"] for group in any_cluster.ray["workerGroupSpecs"]}
    assert found["kubernetes-ray"] == {(name, 8080) for name in ("head", *workers)}


def test_a_driver_is_scraped_after_it_has_ended(any_cluster: Cluster) -> None:
    audit = yaml.safe_load(any_cluster.one("ConfigMap", "line-audit")["data"]["audit.yaml"])
    config = yaml.safe_load((ROOT / "cluster" / "monitoring" / "prometheus-kubernetes.yaml").read_text())
    assert config["global"]["scrape_interval"] == "15s"
    assert audit["metrics_linger"] >= 2 * 15
    assert audit["metrics_port"] == 9464 and audit["metrics_host"] == "0.0.0.0"


def test_waiting_for_machines_is_no_standstill(production: Cluster) -> None:
    audit = yaml.safe_load(production.one("ConfigMap", "line-audit")["data"]["audit.yaml"])
    rules = yaml.safe_load((ROOT / "cluster" / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    (stalled,) = (rule["expr"] for rule in rules if rule["alert"] == "LineAuditStalled")
    (patience,) = re.findall(r"line_audit_run_start_timestamp_seconds > (\d+)", stalled)
    assert audit["node_timeout"] + 300 <= int(patience)


def test_it_is_not_on_a_machine_that_is_taken_away(production: Cluster) -> None:
    spec = production.pods()["exporter"]["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    refused = {each["key"]: (each["operator"], each["values"]) for each in term["matchExpressions"]}
    assert refused == {
        "karpenter.sh/capacity-type": ("NotIn", ["spot"]),
        "eks.amazonaws.com/capacityType": ("NotIn", ["SPOT"]),
    }
    assert "tolerations" not in spec  # so not on the machines of the audit


@pytest.fixture
def plant() -> Iterator[str]:
    with s3_server("plant"):
        S3FileSystem.clear_instance_cache()
        yield "s3://plant/audit"
    S3FileSystem.clear_instance_cache()


def read(output: str) -> dict[str, float]:
    """What an exporter says of an output that it has read twice, by series."""
    exporter = Exporter(Reader(output, ("audit",)), Site(Deadline.parse("06:00", "Europe/Berlin")))
    exporter.read()
    exporter.read()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in exporter.collect()
        for sample in family.samples
        if not sample.name.startswith(("line_audit_exporter_read_seconds", "line_audit_exporter_staleness"))
        and "_age_" not in sample.name
    }


def test_its_role_lets_it_read_what_it_needs_and_no_more(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with enforced("exporter", monkeypatch) as allowed:
        assert read(plant)["line_audit_exporter_errors_total[]"] == 0  # before the first night
    folder, record = write_night(plant, Night("2026-03-01", rows=300))
    write_report(folder, make_report(folder, record, record.bundle))
    lost, left = write_night(plant, Night("2026-03-02", rows=300))
    delete(lost.success)
    left.model_copy(update={"state": "failed", "exit_code": 4}).save(lost)
    write_bytes(lost.lock, b'{"beat": 1.0}')
    expected = read(plant)
    with enforced("exporter", monkeypatch) as allowed:
        assert read(plant) == expected
    assert expected["line_audit_last_run_report[('name', 'audit')]"] == 1
    assert expected["line_audit_last_run_exit_code[('name', 'audit')]"] == 4  # of the unfinished run
    assert allowed.unused() == set()
    with enforced("exporter", monkeypatch), pytest.raises(PermissionError):
        S3FileSystem().cat_file(folder.results)
