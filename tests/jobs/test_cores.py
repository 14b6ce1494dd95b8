"""CPUs that a process may use, by its affinity and by the quota of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs import cores as module
from jobs.cores import cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("", 8),
    ],
)
def test_a_quota_counts_where_it_is_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(module, "CPU_MAX", tmp_path / "cpu.max")
    assert cores() == expected


def test_without_cgroups_the_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    monkeypatch.setattr(module, "CPU_MAX", tmp_path / "none")
    assert cores() == 1
