"""A second node that dies under a run: its raylet, or all of it at once (``make faults``)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobs.audit import exits
from tests.bundles import write_random_bundle
from tests.faults.cluster import ROOT, running_cluster
from tests.faults.conftest import POINT, REACHED
from tests.faults.night import Ground
from tests.faults.points import NODE, NODES, Case
from tests.faults.reader import Reader
from tests.faults.test_campaign import Tell, named
from tests.faults.test_kill import OPTIONS
from tests.jobs.audit.conftest import write_archive
from tests.jobs.audit.test_submit import can_make_namespaces

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

INSIDE = "LINE_AUDIT_LOOPBACK_ONLY"  # this is the process inside of the namespace


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    root = tmp_path_factory.mktemp("nodes")
    write_archive(root / "archive")
    bundle = write_random_bundle(root / "bundle", threshold=0.7)
    with running_cluster() as cluster:
        yield Ground(cluster, "local", str(root / "archive" / "manifest.csv"), str(bundle), str(root), OPTIONS)


@pytest.mark.parametrize("case", NODES, ids=named)
def test_a_killed_node_is_survived(ground: Ground, case: Case, record_property: Tell) -> None:
    record_property(POINT, f"two nodes: {case.name}")
    reference = ground.reference
    ground.cluster.add_node(NODE)
    night = ground.night()
    with Reader(night.output, reference.rows) as reader:
        code, said = night.struck(*case.starts)
        record_property(REACHED, True)
        assert code == exits.COMMITTED, said
        night.check(reader)


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
