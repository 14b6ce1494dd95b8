"""The house rules that a program can check: who may import whom, and what lies where."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORAGE = {"fsspec", "s3fs", "boto3", "botocore", "aiobotocore"}
FORBIDDEN = {
    "anomaly_core": {"jobs", "manifests", "cluster", "tests", "ray", "typer", "rich", "gradio", "moto"} | STORAGE,
    "manifests": {"jobs", "anomaly_core", "cluster", "tests", "ray", "torch", "gradio", "moto"} | STORAGE,
    "jobs": {"tests", "cluster"},
    "cluster": {"tests"},
}
TOP = {
    "jobs", "anomaly_core", "cluster", "manifests", "tests", "pyproject.toml", "README.md", "Makefile",
    "requirements.lock", ".ci", "LICENSE", ".gitignore",
}  # fmt: skip
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and first word of every import in a file, wherever in it, also those by name."""
    package = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value).partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if name in FORBIDDEN[package]
    ]
    assert found == []


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pack" / "a.py"
    file.parent.mkdir()
    file.write_text(
        "import ray.data as data, os\nfrom jobs.cli import main\nfrom . import b\n"
        "def f():\n    import boto3\n    import importlib\n    importlib.import_module('fsspec.core')\n"
    )
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert {name for _, name in imports(file)} == {"ray", "os", "jobs", "pack", "boto3", "importlib", "fsspec"}


def test_no_module_is_named_after_nothing() -> None:
    packages = ("jobs", "anomaly_core", "cluster", "manifests", "tests")
    found = [p for package in packages for p in (ROOT / package).rglob("*") if p.stem.lower() in NAMELESS]
    assert found == []


def test_the_top_level_holds_what_it_may() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout, or no git")
    listed = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    top = {name.partition("/")[0] for name in listed.split("\0") if name}
    assert top - TOP == set()


def test_the_lock_names_every_package_once_with_its_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    logical = [
        line for line in (part.partition("#")[0].strip() for part in text.replace("\\\n", " ").splitlines()) if line
    ]
    assert "://" not in "\n".join(logical)
    requirement = re.compile(
        r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?==[A-Za-z0-9.!+_-]+( *;[^-]*(?:-[^-][^-]*)*)?"
        r"(?P<hashes>(\s+--hash=sha256:[0-9a-f]{64})+)"
    )
    wrong = [line[:80] for line in logical if not requirement.fullmatch(line)]
    assert wrong == []
    # The same package may come twice, for different machines, and then each says for which.
    names = [re.split(r"[=\[]", line)[0].lower().replace("_", "-") for line in logical]
    twice = {name for name in names if names.count(name) > 1}
    assert all(";" in line for line, name in zip(logical, names, strict=True) if name in twice)


def test_the_lock_has_what_the_project_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted = {re.split(r"[\[<>=!~; ]", each)[0].lower().replace("_", "-") for each in asked}
    text = (ROOT / "requirements.lock").read_text()
    locked = {m.lower().replace("_", "-") for m in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==", text, re.MULTILINE)}
    assert wanted - locked == set()
