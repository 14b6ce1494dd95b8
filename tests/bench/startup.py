"""From the command to the first row: the job against an empty pipeline of three stages with torch in its workers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from jobs.machine import cores
from tests.bench.job import audit


def start_up(bundle: Path, manifest: Path, output: Path, repeats: int) -> dict[str, Any]:
    """Seconds of both, in turns; medians."""
    from jobs.audit.stages import SHARDS_AT_ONCE  # it brings torch, which the empty pipeline's driver does without

    actors = -(-cores() // SHARDS_AT_ONCE)  # as many as the audit has
    command = [sys.executable, "-m", "tests.bench.startup", str(actors)]
    ours, empty = [], []
    for _ in range(repeats):
        ours.append(audit(bundle, manifest, output, 300).timings["seconds_to_first_score"])
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        empty.append(json.loads(run.stdout.splitlines()[-1]))
    return {"audit": median(ours), "empty_pipeline": median(empty), "all": {"audit": ours, "empty_pipeline": empty}}


def _with_torch(table: Any) -> Any:
    import torch

    torch.zeros(1)
    return table


class _Model:
    def __init__(self) -> None:
        import torch

        self.nothing = torch.zeros(1)

    def __call__(self, table: Any) -> Any:
        return table.append_column("here", [[time.time()] * len(table)])


def main() -> None:
    """Run the empty pipeline with so many actors (argument); print the seconds from its start to a row."""
    import psutil
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    actors = ray.data.ActorPoolStrategy(size=int(sys.argv[1]))
    dataset = (
        ray.data.range(16, override_num_blocks=16)
        .map_batches(_with_torch, batch_size=None, num_cpus=0.6)
        .map_batches(_Model, batch_size=None, batch_format="pyarrow", num_cpus=0.4, compute=actors)
        .map_batches(_with_torch, batch_size=None, num_cpus=0.2)
    )
    # The second stage has it, where an image gets its score in the audit.
    first = next(iter(dataset.iter_batches(batch_size=None)))["here"].min()
    print(json.dumps(round(first - psutil.Process().create_time(), 2)))


if __name__ == "__main__":
    main()
