"""Options of an audit from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app

TYPED = ["--manifest", "m.csv", "--bundle", "b", "--output", "o"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings that the command line gives to the audit."""
    from jobs.audit import command

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "run_command", lambda settings, **more: seen.append(settings) or 0)
    return seen


def written(folder: Path, text: str) -> str:
    file = folder / "settings.yaml"
    file.write_text(text)
    return str(file)


def test_options_come_from_a_file_and_what_is_typed_wins(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        manifest: [s3://plant/a.parquet, s3://plant/b.parquet]
        bundle: s3://plant/models
        output: s3://plant/audit
        run_date: 2026-11-24     # a date of YAML
        max-failed: 5%
        load_cpus: 32
        heatmaps: all
        trust_declared: true
        allow: [s3://plant/, s3://other/]
        price: 3.06
        """,
    )
    done = CliRunner().invoke(app, ["audit", "--config", file, "--bundle", "mine", "--max-failed", "7"])
    assert done.exit_code == 0, done.output
    (settings,) = asked
    told = {name: settings[name] for name in ("bundle", "output", "run_date", "max_failed", "load_cpus", "heatmaps")}
    assert told == {
        "bundle": "mine",
        "output": "s3://plant/audit",
        "run_date": "2026-11-24",
        "max_failed": "7",
        "load_cpus": 32,
        "heatmaps": "all",
    }
    assert (settings["manifest"], settings["also"]) == ("s3://plant/a.parquet", ("s3://plant/b.parquet",))
    assert settings["trust_declared"] is True
    assert settings["allow"] == ("s3://plant/", "s3://other/")
    assert settings["price_per_node_hour"] == 3.06


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_faild: 5%", "max_faild: no such option"),
        ("config: other.yaml", "config: no such option"),
        ("- max_failed", "write options as 'name: value'"),
        ("", "write options as 'name: value'"),
        ("max_failed: {share: 1}", "max_failed: give one value"),
        ("max_failed:", "max_failed: give one value"),
        ("a: [", "cannot be read"),
        ("scorers: many", "'--scorers'"),
        ("scorers: 0", "greater than or equal to 1"),
        ("heatmaps: some", "'--heatmaps'"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_file_that_says_what_is_not_understood_starts_nothing(
    asked: list[dict[str, Any]], tmp_path: Path, text: str, said: str
) -> None:
    done = CliRunner().invoke(app, ["audit", *TYPED, "--config", written(tmp_path, text)])
    assert done.exit_code == 2 and asked == []
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_file_that_is_not_there_is_named(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", *TYPED, "--config", str(tmp_path / "none.yaml")])
    assert done.exit_code == 2 and asked == []
    assert "no such file" in " ".join(done.output.replace("│", " ").split())
