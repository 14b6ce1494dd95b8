"""What Kustomize makes of our folders, as far as they use it, so that tests need no program besides Python.

Known: resources, namespace, configMapGenerator (files, literals), images (newTag), patches (JSON 6902 with a target),
replacements of whole fields. Anything else is refused. test_kustomize.py holds it against the real one where that is
installed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

KNOWN = {
    "apiVersion", "kind", "namespace", "resources", "configMapGenerator", "generatorOptions", "images", "patches",
    "replacements",
}  # fmt: skip
NO_NAMESPACE = {"Namespace", "NodePool"}
Resource = dict[str, Any]


def build(folder: Path) -> list[Resource]:
    """The resources of a folder with a kustomization.yaml."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(plan) <= KNOWN, set(plan) - KNOWN
    found: list[Resource] = []
    for name in plan.get("resources", []):
        path = folder / name
        found += build(path) if path.is_dir() else load(path)
    assert plan.get("generatorOptions", {"disableNameSuffixHash": True}) == {"disableNameSuffixHash": True}
    found += [_config_map(folder, each) for each in plan.get("configMapGenerator", [])]
    for patch in plan.get("patches", []):
        targets = [each for each in found if _is_target(each, patch["target"])]
        assert targets, f"a patch of {folder} has no target: {patch['target']}"
        for each in targets:
            for operation in yaml.safe_load(patch["patch"]):
                _apply(each, operation)
    if "namespace" in plan:
        for each in found:
            _move(each, plan["namespace"])
    for image in plan.get("images", []):
        assert set(image) == {"name", "newTag"}
        for each in found:
            _tag(each, image["name"], str(image["newTag"]))
    for replacement in plan.get("replacements", []):
        _replace(found, replacement)
    return found


def load(path: Path) -> list[Resource]:
    """The documents of a YAML file; what an anchor shares is shared no more."""
    return [json.loads(json.dumps(each)) for each in yaml.safe_load_all(path.read_text()) if each]


def _config_map(folder: Path, plan: dict[str, Any]) -> Resource:
    assert set(plan) <= {"name", "files", "literals"}
    data = {name: (folder / name).read_text() for name in plan.get("files", [])}
    data |= dict(each.split("=", 1) for each in plan.get("literals", []))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": plan["name"]}, "data": data}


def _is_target(resource: Resource, target: dict[str, str]) -> bool:
    name = re.fullmatch(target.get("name", ".*"), resource["metadata"]["name"])
    return resource["kind"] == target["kind"] and name is not None


def _apply(resource: Resource, operation: dict[str, Any]) -> None:
    """One operation of RFC 6902 on a resource."""
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    place: Any = resource
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list) and last == "-":
        assert operation["op"] == "add", operation
        place.append(operation["value"])
        return
    key: Any = int(last) if isinstance(place, list) else last
    match operation["op"]:
        case "add" if isinstance(place, dict):
            place[key] = operation["value"]
        case "replace":
            assert place[key] is not None
            place[key] = operation["value"]
        case "remove":
            del place[key]
        case "test":
            assert place[key] == operation["value"], operation
        case other:
            raise AssertionError(f"{other} is not known here")


def _move(resource: Resource, namespace: str) -> None:
    if resource["kind"] == "Namespace":
        resource["metadata"]["name"] = namespace
    elif resource["kind"] not in NO_NAMESPACE:
        resource["metadata"]["namespace"] = namespace
    for subject in resource.get("subjects", []):
        subject["namespace"] = namespace


def _tag(node: Any, name: str, tag: str) -> None:
    """Every image of that name, wherever containers are."""
    if isinstance(node, list):
        for each in node:
            _tag(each, name, tag)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "image" and isinstance(value, str) and value.partition(":")[0] == name:
                node[key] = f"{name}:{tag}"
            else:
                _tag(value, name, tag)


def _replace(found: list[Resource], plan: dict[str, Any]) -> None:
    source = plan["source"]
    (value,) = (each for each in found if each["kind"] == source["kind"] and each["metadata"]["name"] == source["name"])
    for part in source["fieldPath"].split("."):
        value = value[part]
    for target in plan["targets"]:
        select, (field,) = target["select"], target["fieldPaths"]
        (place,) = (e for e in found if e["kind"] == select["kind"] and e["metadata"]["name"] == select["name"])
        place[field] = json.loads(json.dumps(value))
