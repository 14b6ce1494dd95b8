"""The real images and weights, which lie outside the project: where they are, and what was skipped without them; and
which tests share a process when two run side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# No test is late: how long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

VARIABLE = "LINE_AUDIT_SHARED"
REASON = f"no real images and weights ({VARIABLE})"


def shared_root() -> Path | None:
    """The folder with data/ and weights/: the one that the variable names, else the one beside the project; or None."""
    named = os.environ.get(VARIABLE)
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return root if (root / "data" / "mvtec224").is_dir() and (root / "weights").is_dir() else None


@pytest.fixture(scope="session", name="shared_root")
def _shared_root() -> Path:
    """shared_root(), for tests marked ``shared``: without the marker a test would fail where the folder is absent."""
    root = shared_root()
    assert root is not None, "a test that uses shared_root needs @pytest.mark.shared"
    return root


# Folders whose tests share what is dear to make, such as a Ray. Begun in this order, so that none is left to the end.
TOGETHER = ("jobs/audit", "faults", "anomaly_core", "bench")


def group(path: str) -> str:
    """What runs in one process with a test module, given as a path below the project: itself, or its folder."""
    return next((folder for folder in TOGETHER if path.startswith(f"tests/{folder}/")), path)


class InGroups(LoadScopeScheduling):
    """Gives a process all tests of a group, then all of the next one."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


def pytest_configure() -> None:
    """Threads of torch that wait would spin, which on two cores with two test processes and their Rays takes the CPU
    from those that work: the tests of the evaluation took 72 CPU seconds with it and 42 without. Read when torch is
    first imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> InGroups:
    """Of ``--numprocesses``."""
    return InGroups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``shared`` are skipped where the folder is absent. Groups are in the order of TOGETHER."""
    ranks = {folder: rank for rank, folder in enumerate(TOGETHER)}
    items.sort(key=lambda item: ranks.get(group(item.nodeid.partition("::")[0]), len(TOGETHER)))
    if shared_root() is None:
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason=REASON))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for want of the folder: a green run without them has checked less."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(REASON in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"{count} tests skipped: {REASON}")
