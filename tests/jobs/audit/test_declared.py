"""Declared categories that the bundle does not have: told with their rows, before a night is spent on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.audit.declared import undeclared
from jobs.audit.run import dry_run
from jobs.audit.summary import print_plan
from jobs.bundles import read_bundle
from manifests.freeze import FrozenManifest, freeze_file
from tests.jobs.audit.conftest import config


def frozen(folder: Path, *declared: str) -> tuple[FrozenManifest, Path]:
    lines = [f"images/{i}.png,{category}" for i, category in enumerate(declared)]
    (folder / "m.csv").write_text("\n".join(["uri,declared_category", *lines, "images/0.png,twice", ",none"]) + "\n")
    return freeze_file(folder / "m.csv", folder / "frozen"), folder / "frozen"


def test_each_is_named_with_its_rows_the_most_frequent_first(bundle: str, tmp_path: Path) -> None:
    read = read_bundle(bundle)
    found, parts = frozen(tmp_path, "cap", "Cap", "gear", "", "Cap", "o'ring", *"abcd")
    (said,) = undeclared(read, found, parts)
    assert said == (
        "7 of 12 rows declare a category that the bundle does not have ('Cap' 2, 'a' 1, 'b' 1, 'c' 1, 'd' 1, and 1 "
        "more): they go to review without a score; it has cap, gear, tile"
    )
    assert undeclared(replace(read, manifest=None), found, parts) == ()


def test_nothing_is_said_where_all_are_known(bundle: str, tmp_path: Path) -> None:
    found, parts = frozen(tmp_path, "cap", "", "tile")
    assert undeclared(read_bundle(bundle), found, parts) == ()


def test_a_dry_run_tells_it(
    archive: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.audit.run.forecast", lambda *_: None)  # no sample is scored
    manifest = archive / "spelt.csv"
    manifest.write_text("uri,declared_category\nimages/000.jpg,Cap\nimages/001.png,cap\n")
    asked = config(archive, bundle, tmp_path / "out", manifest=str(manifest))
    print_plan(asked, dry_run(asked))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "warning 1 of 2 rows declare a category that the bundle does not have ('Cap' 1)" in said
