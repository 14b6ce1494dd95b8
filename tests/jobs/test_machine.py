"""CPUs and memory that a process may use, by its affinity and by the limits of its container."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import pytest

from jobs import cluster_session, machine
from jobs.cluster_session import store_bytes
from jobs.machine import cores, cpu_name, memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),  # as Ray counts
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("", 8),
    ],
)
def test_a_quota_counts_where_it_is_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(machine, "CPU_MAX", tmp_path / "cpu.max")
    assert cores() == expected


def test_without_cgroups_the_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(machine, "CPU_MAX", tmp_path / "none")
    assert cores() == 1


@pytest.mark.parametrize(("text", "limit"), [("max\n", None), ("1073741824\n", 2**30), ("9999999999999999\n", None)])
def test_a_limit_of_memory_counts_where_it_is_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, limit: int | None
) -> None:
    (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(machine, "MEMORY_MAX", tmp_path / "memory.max")
    assert memory() == (limit or psutil.virtual_memory().total)


@pytest.mark.parametrize(
    ("count", "gib", "held", "mib"),
    [(2, 24, 0, 1024), (2, 24, 100, 1124), (8, 64, 0, 2048), (64, 512, 500, 4596), (64, 4, 0, 1228)],
)
def test_the_object_store_follows_the_machine(
    monkeypatch: pytest.MonkeyPatch, count: int, gib: int, held: int, mib: int
) -> None:
    monkeypatch.setattr(cluster_session, "cores", lambda: count)
    monkeypatch.setattr(cluster_session, "memory", lambda: gib * 2**30)
    assert store_bytes(held * 2**20) // 2**20 == mib


def test_the_name_of_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert cpu_name() == platform.machine()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: A CPU 9\nmodel name\t: Another\n")
    assert cpu_name() == "A CPU 9"
