"""Ray Data's scheduling loop, kept from taking more of a small machine than it gives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ray.data._internal.execution.execution_callback import ExecutionCallback

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

# What the loop may take of the CPUs that it shares with the stages. A step costs 3 to 6 ms, whatever it finds, and Ray
# Data takes up to ten a second: 2 % of two cores, while a shard is for seconds in every stage.
SHARE = 0.005
# Whatever a stage ends during a pause waits for the next step, and for the one after that: Ray Data takes two to pass
# a block on. Where storage is the limit, a place for loading is empty so long for every shard: with pauses of a tenth
# of a shard's time 9 % fewer were loaded. So a pause is never longer than this, nor than a hundredth of the time that
# the run has taken, nor than three hundredths of what a shard takes.
LONGEST_SECONDS = 0.5
OF_THE_RUN, OF_A_SHARD = 0.01, 0.03


class Paced(ExecutionCallback):  # type: ignore[misc]
    """A pause after each step of the loop. cpus: those that it shares with the stages. shards: of the run."""

    def __init__(self, cpus: float, shards: int):
        self.cpus, self.shards = cpus, shards
        self.began: float | None = None
        self.ended = self.used = 0.0

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Called by Ray Data after each step, in the thread of the loop."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        else:
            used, step = time.thread_time() - self.used, now - self.ended
            time.sleep(pause(used, step, self.cpus, now - self.began, self.shards))
        self.ended, self.used = time.monotonic(), time.thread_time()


def pause(used: float, step: float, cpus: float, elapsed: float, shards: int) -> float:
    """Seconds of pause after a step of ``step`` seconds, ``used`` of them of a CPU, ``elapsed`` seconds into a run.

    A shard takes ``elapsed / shards`` on average at the end of a run, and more before it, when not all are there.
    """
    bound = elapsed * min(OF_THE_RUN, OF_A_SHARD / max(1, shards))
    return max(0.0, min(used / (SHARE * cpus) - step, LONGEST_SECONDS, bound))
