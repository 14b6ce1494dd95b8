"""Prometheus' files and Grafana's: valid, of metrics that exist, and every rule fires when it should and only then."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.monitoring.catalogue import RESULTS, RUN

FOLDER = Path(__file__).resolve().parents[2] / "cluster" / "monitoring"
OURS = {metric.name: metric for metric in (*RUN, *RESULTS)}
NAME = re.compile(r"\b(?:line_audit|ray)_[a-z0-9_]+\b")
PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="no promtool here, rules and configuration are unchecked (Debian: apt-get install prometheus)",
)


def promtool(*arguments: str, cwd: Path = FOLDER) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Of the dashboard: title of the panel, and PromQL."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


@with_promtool
def test_rules_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")


def test_every_rule_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [
        c for t in yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"] for c in t["alert_rule_test"]
    ]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    still = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fired == still == {rule["alert"] for rule in rules()}


@with_promtool
def test_a_rule_that_is_broken_is_found(tmp_path: Path) -> None:
    """The cases can fail: with a rule for two hours instead of a quarter of one, they do."""
    for name in ("alerts.yaml", "alerts_test.yaml"):
        (tmp_path / name).write_text((FOLDER / name).read_text().replace("> 900", "> 7200"))
    with pytest.raises(AssertionError, match="LineAuditStalled"):
        promtool("test", "rules", "alerts_test.yaml", cwd=tmp_path)


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    headings = re.findall(r"^### (\w+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/cluster/monitoring/README.md") and anchor == rule["alert"].lower()


@with_promtool
def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    assert "is valid prometheus config file syntax" in promtool("check", "config", "prometheus.yaml")
    # Debian's build knows no Kubernetes: with the pods that it would find given by hand, all else is checked.
    config = yaml.safe_load((FOLDER / "prometheus-kubernetes.yaml").read_text())
    for job in config["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["static_configs"] = [{"targets": ["10.0.0.1:8080"]}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    assert "is valid prometheus config file syntax" in promtool("check", "config", "prometheus.yaml", cwd=tmp_path)


def test_both_configurations_give_the_jobs_that_rules_know() -> None:
    local = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    pods = yaml.safe_load((FOLDER / "prometheus-kubernetes.yaml").read_text())["scrape_configs"]
    replaced = [r["replacement"] for job in pods for r in job["relabel_configs"] if r.get("target_label") == "job"]
    assert {job["job_name"] for job in local} == set(replaced) == {"line-audit-driver", "line-audit-exporter", "ray"}
    named = set(re.findall(r'job="([^"]+)"', (FOLDER / "alerts.yaml").read_text()))
    assert named == {"line-audit-exporter"}


def test_the_guide_makes_a_resource_of_the_rules() -> None:
    text = (FOLDER / "README.md").read_text()
    (command,) = re.findall(r"^    (\(printf .*?)\|\n +kubectl apply -f -$", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run(["sh", "-euc", command], cwd=FOLDER.parents[1], capture_output=True, text=True, check=True)
    made = yaml.safe_load(done.stdout)
    assert (made["kind"], made["metadata"]["namespace"]) == ("PrometheusRule", "line-audit")
    assert made["spec"] == yaml.safe_load((FOLDER / "alerts.yaml").read_text())


def test_panels_have_ids_places_and_a_data_source_of_their_own() -> None:
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found)
    places = {panel["title"] + str(panel["id"]): panel["gridPos"] for panel in found}
    for place in places.values():
        assert place["w"] > 0 and place["h"] > 0 and 0 <= place["x"] <= 24 - place["w"]
    for one, other in combinations(places.values(), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    for panel in found:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references) > 0
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_the_dashboard_can_be_imported_anywhere() -> None:
    board = json.loads((FOLDER / "dashboard.json").read_text())
    assert board["id"] is None and board["uid"] == "line-audit" and board["schemaVersion"] >= 36
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert variables["name"]["datasource"]["uid"] == "${datasource}"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board)))
    assert used <= {"__rate_interval", *variables}


def test_every_metric_that_is_asked_for_exists() -> None:
    import ray.dashboard.modules.metrics.dashboards as rays

    known = "\n".join(path.read_text() for path in Path(rays.__path__[0]).glob("*.py"))
    for where, text in [*expressions(), *((rule["alert"], rule["expr"]) for rule in rules())]:
        names = set(NAME.findall(text))
        assert names, where
        for name in names:
            assert name in OURS or (name.startswith("ray_") and re.search(rf"\b{name}\b", known)), (where, name)


def test_labels_that_are_asked_for_exist() -> None:
    for where, text in expressions():
        for name, matchers in re.findall(r"\b(line_audit_\w+)\{([^}]*)\}", text):
            asked = set(re.findall(r"(\w+)\s*[=!]~?", matchers))
            assert asked <= {*OURS[name].labels, "job", "instance"}, where


def test_every_metric_of_ours_is_shown_or_alerted_on() -> None:
    shown = " ".join([*(text for _, text in expressions()), *(rule["expr"] for rule in rules())])
    assert set(OURS) - set(NAME.findall(shown)) == set()


@with_promtool
def test_every_panel_asks_in_valid_promql(tmp_path: Path) -> None:
    exprs = [text.replace("$__rate_interval", "5m").replace("$name", ".*") for _, text in expressions()]
    recorded = [{"record": f"line:of:{i}", "expr": text} for i, text in enumerate(exprs)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"{len(exprs)} rules found" in promtool("check", "rules", "rules.yaml", cwd=tmp_path)
