"""The Dockerfile: what a linter would say, and its steps in a clean environment, where no Docker engine runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.cluster.conftest import ROOT

IMAGE = ROOT / "cluster" / "image"
PACKAGES = ("anomaly_core", "manifests", "jobs", "cluster")


@dataclass(frozen=True)
class Step:
    """An instruction of the Dockerfile. stage: name of its build stage, empty before the first."""

    stage: str
    word: str
    rest: str


def steps() -> list[Step]:
    """The instructions in their order."""
    lines = [line for line in (IMAGE / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    found, stage = [], ""
    for logical in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not logical.strip():
            continue
        word, _, rest = logical.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        found.append(Step(stage, word, rest.strip()))
    return found


def of(stage: str, word: str) -> list[str]:
    return [each.rest for each in steps() if (each.stage, each.word) == (stage, word)]


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    said = subprocess.run([program, str(IMAGE / "Dockerfile")], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_the_base_is_one_python_of_an_exact_version() -> None:
    (base,) = of("", "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=docker\.io/library/python:3\.11\.\d+-slim-[a-z]+", base)
    froms = [each.rest for each in steps() if each.word == "FROM"]
    assert froms == [
        "${PYTHON_IMAGE} AS build",
        "${PYTHON_IMAGE} AS base",
        "base AS launcher",
        "base AS line-audit",  # the last is what is built unless told otherwise
    ]


def test_it_runs_as_a_user_without_rights() -> None:
    assert of("base", "USER") == ["1000:1000"] and of("line-audit", "USER") == []
    assert of("launcher", "USER") == ["0:0", "1000:1000"]
    assert not [each for each in steps() if each.word == "COPY" and "--chown" in each.rest]  # nothing it could change


def test_nothing_comes_from_addresses_and_no_secret_is_kept() -> None:
    for each in steps():
        assert each.word in {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "LABEL", "ENTRYPOINT", "CMD"}
        assert "://" not in each.rest and not re.search(r"\b(curl|wget|sudo)\b", each.rest)
        if each.word in ("ARG", "ENV"):
            assert not re.search(r"(?i)password|secret|token|key", each.rest)


def test_everything_installed_is_pinned_with_its_hash() -> None:
    installs = re.findall(r"(?:uv )?pip install ((?:(?!&&).)+)", " && ".join(of("build", "RUN")))
    assert len(installs) == 3
    for each in installs:
        assert "--require-hashes" in each or ("--no-deps" in each and "--no-index" in each)
    assert "--constraints requirements.lock" in installs[1]
    assert all("--compile-bytecode" in each for each in installs[1:])  # the file system is read-only at run time
    text = re.sub(r"\\\n\s*", "", (IMAGE / "build.lock").read_text())
    for line in text.splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line.strip()), line[:80]


def test_a_change_of_the_code_does_not_install_libraries_again() -> None:
    order = [each for each in steps() if each.stage == "build"]
    libraries = next(index for index, each in enumerate(order) if "--constraints" in each.rest)
    before = " ".join(each.rest for each in order[:libraries] if each.word == "COPY")
    assert "requirements.lock" in before and not any(package in before for package in PACKAGES[:3])


def test_gpus_are_seen_and_the_command_is_found() -> None:
    env = dict(re.findall(r"(\w+)=(\S+)", of("base", "ENV")[0]))
    assert env["NVIDIA_VISIBLE_DEVICES"] == "all" and env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert env["PATH"] == "/opt/line-audit/bin:$PATH"
    assert "/etc/profile.d/line-audit.sh" in of("base", "RUN")[0]  # login shells too
    assert of("line-audit", "ENTRYPOINT") == ['["line-audit"]']


def test_the_builder_gets_what_is_copied_and_no_more() -> None:
    rules = [line for line in (IMAGE / "Dockerfile.dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    copied = {path for rest in of("build", "COPY") for path in rest.split()[:-1]}
    assert {path.partition("/")[0] for path in copied} == let_in
    assert all(any(fnmatch(name, rule) for rule in rules[1:]) for name in ("**/__pycache__", "**/.env"))
    assert all((ROOT / path).exists() for path in copied)


def replayed(opt: Path, name: str) -> str:
    """A RUN step of the build stage that has ``name`` in it, with its folders in the test's own."""
    (found,) = (each for each in of("build", "RUN") if name in each)
    return found.replace("/opt/line-audit", str(opt)).replace("python -m venv", f"{sys.executable} -m venv")


def run(command: str, work: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["sh", "-euc", command], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tracked() -> list[str]:
    """The files of this checkout."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout, or no git")
    command = [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.split("\0") if name]


def locked_versions() -> dict[str, set[str]]:
    """Of every package, several where they differ by machine or Python."""
    found: dict[str, set[str]] = {}
    lock = (ROOT / "requirements.lock").read_text()
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", lock, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.slow
def test_its_steps_build_a_whole_installation(tmp_path: Path) -> None:
    work, opt, files = tmp_path / "build", tmp_path / "opt", tracked()
    work.mkdir()
    copied = [path for rest in of("build", "COPY") for path in rest.split()[:-1]]
    for name in files:
        if any(name == path or name.startswith(f"{path}/") for path in copied):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, work / name)
    shutil.copyfile(IMAGE / "build.lock", work / "build.lock")

    run(replayed(opt, "build.lock"), work)
    # All but the download of some gigabytes: resolved against the lock file, for the machine that this is.
    libraries = replayed(opt, "--constraints").replace(" --no-cache", "")
    said = run(libraries.replace("pip install", "pip install --dry-run"), work)
    chosen, locked = dict(re.findall(r"^ \+ ([a-z0-9-]+)==(\S+)$", said, re.MULTILINE)), locked_versions()
    assert {"torch", "ray", "duckdb", "httpx"} <= set(chosen) and not {"pytest", "mypy", "moto"} & set(chosen)
    assert {name: version for name, version in chosen.items() if version not in locked[name]} == {}

    run(replayed(opt, "hatchling build"), work)
    (site,) = (opt / "lib").glob("python3*/site-packages")
    ours = [name for name in files if name.partition("/")[0] in PACKAGES]
    assert len(ours) > 100 and [name for name in ours if not (site / name).exists()] == []
    # Its own code with the libraries of this environment.
    libraries_here = next(path for path in sys.path if path.endswith("site-packages"))
    where = "import jobs, cluster.nightly; print(jobs.__file__, cluster.nightly.__file__)"
    said = run(f"PYTHONPATH={libraries_here} {opt}/bin/python -c '{where}'", tmp_path)
    assert all(path.startswith(str(site)) for path in said.split())
    assert "audit" in run(f"PYTHONPATH={libraries_here} {opt}/bin/line-audit --help", tmp_path)


@pytest.mark.slow
def test_a_changed_byte_of_a_library_is_refused(tmp_path: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    (entry,) = re.findall(r"^shellingham==(?:.*\\\n)+.*\n", lock, re.MULTILINE)
    (tmp_path / "requirements.lock").write_text(re.sub("sha256:.{8}", "sha256:00000000", entry))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["shellingham"]\n')
    (command,) = (each for each in of("build", "RUN") if "--constraints" in each)
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    if not Path(uv).exists():
        pytest.skip("uv is not installed")
    command = command.replace("tools/bin/uv", uv).replace("/opt/line-audit", str(tmp_path / "opt"))
    command = command.replace("python -m venv", f"{sys.executable} -m venv")
    done = subprocess.run(["sh", "-euc", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Hash mismatch" in done.stderr, done.stderr
