"""The settings files of cluster/placement are ones that an audit takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.audit.config import AuditConfig
from jobs.cli import app

FOLDER = Path(__file__).resolve().parents[2] / "cluster" / "placement"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_there_is_one_for_each_size() -> None:
    assert [file.stem for file in FILES] == ["gpu-box", "laptop", "ten-nodes"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_audit_takes_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.audit import command

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "run_command", lambda settings, **more: seen.append(settings) or 0)
    typed = ["--manifest", "s3://p/m.csv", "--bundle", "s3://p/b", "--output", "s3://p/o"]
    done = CliRunner().invoke(app, ["audit", "--config", str(file), *typed])
    assert done.exit_code == 0, done.output
    budgets = ("max_failed", "max_failed_per_category")  # still as typed
    settings = {name: value for name, value in seen[0].items() if name in AuditConfig.model_fields.keys() - budgets}
    config = AuditConfig(**settings)
    expected = {
        "laptop": ("anywhere", "cpu", None, None),
        "gpu-box": ("anywhere", "cuda", None, None),
        "ten-nodes": ("pools", "cuda", 2, 128),
    }[file.stem]
    assert (config.placement, config.device, config.extractors, config.load_cpus) == expected
