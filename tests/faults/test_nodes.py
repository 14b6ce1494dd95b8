"""A second node that dies under a run: its raylet, or all of it at once (``make faults``)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.faults.cluster import ROOT
from tests.faults.conftest import POINT, REACHED
from tests.faults.night import Ground, ground_on_disk
from tests.faults.points import NODE, NODES, Case
from tests.faults.test_campaign import Tell, named, survives
from tests.jobs.audit.test_submit import can_make_namespaces

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

INSIDE = "LINE_AUDIT_LOOPBACK_ONLY"  # this is the process inside of the namespace


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground_on_disk(tmp_path_factory.mktemp("nodes")) as ground:
        yield ground


@pytest.mark.parametrize("case", NODES, ids=named)
def test_a_killed_node_is_survived(ground: Ground, case: Case, record_property: Tell) -> None:
    record_property(POINT, f"two nodes: {case.name}")
    assert ground.reference.rows  # the undisturbed run takes place on one node
    ground.cluster.add_node(NODE)
    survives(ground, case, record_property)


@pytest.mark.skipif(INSIDE in os.environ, reason="this is the namespace")
@pytest.mark.skipif(not can_make_namespaces(), reason="no right to make a network namespace for two nodes on loopback")
def test_a_whole_node_is_killed_in_a_network_of_its_own(record_property: Tell) -> None:
    record_property(POINT, "two nodes in a network namespace: whole node while it writes, and when it has written")
    inner = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "campaign",
        "-k",
        "writes or written",
    ]
    done = subprocess.run(
        [
            *("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"),
            'ip link set lo up && exec "$@"',
            *("sh", *inner, "tests/faults/test_nodes.py"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {INSIDE: "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record_property(REACHED, True)
    assert "2 passed" in done.stdout, done.stdout
