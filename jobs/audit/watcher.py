"""What a run tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.audit.plan import Plan
from jobs.audit.receipt import Receipt
from jobs.audit.stall import Movement


@dataclass
class Watcher:
    """What a caller wants to be told; the defaults tell nobody. failing: of an error that ends the run, before that is
    written down and Ray is shut down. moved: of how far the stages are, now and then, from another thread; it must not
    raise. began: when it began, seconds since the epoch."""

    said: Callable[[str], None] = field(default=lambda text: None)
    planned: Callable[[Plan], None] = field(default=lambda plan: None)
    shard_done: Callable[[Receipt], None] = field(default=lambda receipt: None)
    failing: Callable[[BaseException], None] = field(default=lambda error: None)
    moved: Callable[[Movement], None] = field(default=lambda movement: None)
    began: float = field(default_factory=time.time)
