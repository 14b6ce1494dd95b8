"""``python -m tests.faults.host CPUS MIB TEMPORARY``: a Ray that other processes join, until standard input is closed.

Prints its address. For every line of standard input (a name) it adds a node, whose processes have LINE_AUDIT_NODE of
that name, and prints the process id of its raylet.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from ray.cluster_utils import Cluster

from jobs.cluster_session import SYSTEM

# A node that was killed without a word is noticed after this long, instead of after half a minute.
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


def main() -> None:
    cpus, mib, temporary = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    logging.getLogger("ray").setLevel(logging.ERROR)
    size: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": mib * 2**20}
    head = {**size, "include_dashboard": False, "temp_dir": temporary, "_system_config": SYSTEM | HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        node = cluster.add_node(**size, env_vars={"LINE_AUDIT_NODE": line.strip()})
        (raylet,) = node.all_processes["raylet"]
        print(raylet.process.pid, flush=True)
    cluster.shutdown()


main()
