"""The audit through ``line-audit submit``, on a Ray cluster of a head and three nodes that was started separately."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.audit import exits
from jobs.audit.run import Outcome
from tests.jobs.audit.conftest import ROWS
from tests.jobs.audit.loopback import can_make_namespaces, images_by_pool, submitted, timings
from tests.jobs.audit.tables import published, stable


@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="no right to make a network namespace for a cluster on loopback")
def test_a_cluster_that_loses_a_node_gives_the_same_table_and_the_code_arrives(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path
) -> None:
    output = tmp_path / "submitted"
    more = ("--shard-rows", "3", "--max-failed", "6", "--extractors", "1")
    done = submitted(output, str(archive / "manifest.csv"), bundle, *more)
    told = done.stdout + done.stderr
    assert "without a token: 4" in done.stdout and "with a wrong token: 4" in done.stdout, told
    assert "killed a node for loading" in done.stdout, told
    assert done.returncode == exits.BUDGET_EXCEEDED, told
    assert f"progress: {ROWS} of {ROWS} images" in done.stderr, told
    assert stable(published(output)) == stable(published(run[0]))
    stages = images_by_pool(output)
    assert set(stages) == {"load", "models"}, "the head does no work"
    assert set(stages["load"]) == {"load", "write"} and {"extract", "score"} <= set(stages["models"]), stages
    # With one of two nodes for loading just lost, Ray takes the second choice for a moment: seen for one shard of ten.
    assert stages["models"]["load"] + stages["models"]["write"] < ROWS / 4, stages
    assert timings(output)["machine"]["load_cpus"] == 2, "one node for loading is left"
