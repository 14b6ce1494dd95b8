"""The file for Ray's cluster launcher, against Ray's own schema and our image and roles."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.conftest import ROOT

AWS = ROOT / "cluster" / "aws"


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    return dict(yaml.safe_load((AWS / "cluster.yaml").read_text()))


def schema() -> dict[str, Any]:
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    return dict(json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text()))


def test_it_follows_rays_schema(launcher: dict[str, Any]) -> None:
    jsonschema.validate(launcher, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**launcher, "max_worker": 1}, schema())


def test_the_head_is_on_demand_without_work_and_workers_are_spot(launcher: dict[str, Any]) -> None:
    types = launcher["available_node_types"]
    spot = {name for name, each in types.items() if each["node_config"].get("InstanceMarketOptions")}
    assert launcher["head_node_type"] == "head" and spot == {"load", "models-spot"}
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0} and "labels" not in types["head"]
    assert "--num-cpus=0 --num-gpus=0" in launcher["head_start_ray_commands"][-1]
    pools = {name: each["labels"]["line-audit/pool"] for name, each in types.items() if name != "head"}
    assert pools == {"load": "load", "models-spot": "models", "models-on-demand": "models"}
    assert all(types[name]["min_workers"] == 0 for name in pools)
    assert types["models-spot"]["priority"] > types["models-on-demand"]["priority"]
    assert types["models-spot"]["resources"]["GPU"] == 1
    same = {**types["models-spot"]["node_config"]}
    del same["InstanceMarketOptions"]
    assert types["models-on-demand"]["node_config"] == same
    assert launcher["max_workers"] == sum(types[name]["max_workers"] for name in pools)


def test_machines_are_closed(launcher: dict[str, Any]) -> None:
    for name, each in launcher["available_node_types"].items():
        config = each["node_config"]
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert all(
            disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"] for disk in config["BlockDeviceMappings"]
        )
        profile = config["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        assert profile == ("line-audit-head" if name == "head" else "line-audit-worker")
        assert f"`{profile}`" in (AWS / "README.md").read_text()
    assert launcher["provider"]["use_internal_ips"] is True
    assert "--dashboard-host=127.0.0.1" in launcher["head_start_ray_commands"][-1]


def test_the_token_is_on_every_node(launcher: dict[str, Any]) -> None:
    env = dict(re.findall(r"--env (\S+)=(\S+)", "\n".join(launcher["docker"]["run_options"])))
    assert env["RAY_AUTH_MODE"] == "token"
    assert launcher["file_mounts"] == {env["RAY_AUTH_TOKEN_PATH"]: "~/.ray/auth_token"}
    assert env["RAY_idle_worker_killing_time_threshold_ms"] == "600000"
    assert env["RAY_enable_autoscaler_v2"] == "1"  # which knows priorities


def test_the_image_has_what_the_launcher_needs(launcher: dict[str, Any]) -> None:
    assert launcher["docker"]["image"].endswith("-launcher")
    dockerfile = (ROOT / "cluster" / "image" / "Dockerfile").read_text()
    stage = dockerfile.partition("FROM base AS launcher\n")[2].partition("\nFROM ")[0]
    assert "openssh-client rsync" in stage and "ENTRYPOINT" not in stage and stage.rstrip().endswith("USER 1000:1000")


def test_the_head_may_start_workers_and_end_only_them(launcher: dict[str, Any]) -> None:
    statements = json.loads((AWS / "iam" / "launcher-head.json").read_text())["Statement"]
    by_action: dict[str, list[dict[str, Any]]] = {}
    for each in statements:
        for action in each["Action"]:
            by_action.setdefault(action, []).append(each)
    assert not any("*" in action for action in by_action)
    ours = {"aws:ResourceTag/ray-cluster-name": launcher["cluster_name"]}
    for action in ("ec2:TerminateInstances", "ec2:StopInstances", "ec2:DeleteTags"):
        (ends,) = by_action[action]
        assert ends["Condition"]["StringEquals"] == ours
    # Whoever may name any machine so may end any machine.
    names = [each["Condition"]["StringEquals"] for each in by_action["ec2:CreateTags"]]
    assert names == [{"ec2:CreateAction": "RunInstances"}, ours]
    (role,) = by_action["iam:PassRole"]
    assert role["Resource"].endswith(":role/line-audit-worker")
