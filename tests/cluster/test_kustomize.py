"""Our reading of the Kustomize folders is Kustomize's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import FOLDERS, KUBERNETES, rendered
from tests.cluster.kustomize import Resource, build


def by_name(resources: Any) -> dict[tuple[str, str], Resource]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in resources}
    assert len(found) == len(resources)
    return found


def real(folder: Path) -> list[Resource]:
    """As kustomize itself, or the one in kubectl, renders it; anchors and replacements want version 5."""
    for command, version in ((["kustomize", "build"], ["kustomize", "version"]), (["kubectl", "kustomize"], None)):
        if shutil.which(command[0]) is None:
            continue
        asked = version or ["kubectl", "version", "--client"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        if found := re.search(r"v(\d+)\.\d+\.\d+", said.rpartition("Kustomize Version:")[2]):
            if int(found[1]) < 5:
                continue
            text = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True).stdout
            return list(yaml.safe_load_all(text))
    pytest.skip("neither kustomize nor kubectl with kustomize 5 is installed")


@pytest.mark.parametrize("folder", [*FOLDERS, "karpenter"])
def test_kustomize_agrees(folder: str) -> None:
    expected = real(KUBERNETES / folder)
    assert by_name(rendered(folder)) == by_name(expected)


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: a-\n")
    with pytest.raises(AssertionError, match="namePrefix"):
        build(tmp_path)


def test_a_patch_that_lost_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: RayJob\nmetadata: {name: a}\nspec: {groups: [{name: other}]}\n")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [a.yaml]\npatches:\n- target: {kind: RayJob}\n"
        "  patch: '[{op: test, path: /spec/groups/0/name, value: load}]'\n"
    )
    with pytest.raises(AssertionError, match="load"):
        build(tmp_path)
