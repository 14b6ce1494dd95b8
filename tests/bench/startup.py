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
    # Here, because it brings torch, which the empty pipeline's driver does without.
    from jobs.audit.stages import EXTRACT_CPUS, LOAD_CPUS, SHARDS_AT_ONCE, WRITE_CPUS

    actors = -(-cores() // SHARDS_AT_ONCE)  # as many as the audit has
    shares = map(str, (actors, LOAD_CPUS, EXTRACT_CPUS, WRITE_CPUS))
    command = [sys.executable, "-m", "tests.bench.startup", *shares]
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
    """Run the empty pipeline with the arguments' actors and CPU shares; print the seconds from its start to a row."""
    import psutil
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    actors = ray.data.ActorPoolStrategy(size=int(sys.argv[1]))
    load, extract, write = map(float, sys.argv[2:])
    dataset = (
        ray.data.range(16, override_num_blocks=16)
        .map_batches(_with_torch, batch_size=None, num_cpus=load)
        .map_batches(_Model, batch_size=None, batch_format="pyarrow", num_cpus=extract, compute=actors)
        .map_batches(_with_torch, batch_size=None, num_cpus=write)
    )
    # The second stage has it, where an image gets its score in the audit.
    first = next(iter(dataset.iter_batches(batch_size=None)))["here"].min()
    print(json.dumps(round(first - psutil.Process().create_time(), 2)))


if __name__ == "__main__":
    main()
