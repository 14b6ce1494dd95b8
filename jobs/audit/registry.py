"""Which scorer actor owns a category, and what the stages have spent. Needs no torch: it starts with the driver."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from jobs.audit.figures import Spent
from jobs.audit.orphans import end_with_parent
from jobs.audit.proofs import Image
from jobs.audit.self_test import Found
from jobs.audit.stall import Movement

if TYPE_CHECKING:
    from anomaly_core.forms import Precision, ScoreName

# A scorer that dies is started again and its calls repeated: they have no effect but their answer.
RESTARTS = 3
# By stage that a shard has gone through, where it is then.
_NEXT = {"load": "extract", "extract": "write"}


@dataclass(frozen=True)
class ScorerSettings:
    """How the scorer actors run.

    processes: how many actors the categories are packed into, at most. options: what Ray is told of each, such as the
    CPUs and GPUs that it holds, and the nodes that it may run on.
    """

    score: ScoreName
    device: str
    precision: Precision
    processes: int
    threads: int
    options: dict[str, Any]


class Registry:
    """Says which actors own a category, and creates actors when they are needed.

    It belongs to the driver: actors that the extractor created would die with the extractor, detached ones would
    outlive the job. It also counts attempts at shards and what the stages spend, knows who passed the self-test, and
    remembers an image that each storage gave.
    """

    def __init__(
        self,
        settings: ScorerSettings,
        bundle: list[Any],
        cae_files: dict[str, Any],
        images_read: dict[str, Image] | None = None,
    ):
        """bundle: reference of the bundle without autoencoders, in a list. cae_files: references by category.

        images_read: by storage, an image that an earlier start could read.

        References come in containers, because Ray would fetch bare ones.
        """
        end_with_parent()
        self.settings, self.bundle_reference, self.cae_files = settings, bundle, cae_files
        self.actors: list[Any] = []
        self.owners: dict[str, list[int]] = {}
        self.attempts: Counter[int] = Counter()
        self.steps = 0
        self.begun_at: dict[int, float] = {}
        self.in_hand: dict[int, str] = {}
        self.spent_by_stage: dict[str, Spent] = {}
        self.images_read = dict(images_read or {})
        self.tests: dict[str, Found] = {}
        self.lock = threading.Lock()

    def start_first(self) -> None:
        """Create the first actor before a category comes: while the extractors load their models, not after."""
        with self.lock:
            if not self.actors:
                self._create()

    def bundle(self) -> list[Any]:
        """Reference of the bundle without its autoencoders."""
        return self.bundle_reference

    def file(self, category: str) -> list[Any]:
        """Reference of the bytes of a category's autoencoder."""
        return [self.cae_files[category]]

    def owner(self, category: str) -> list[Any]:
        """The handles of the actors that own a category: one, unless it was widened."""
        with self.lock:
            if category not in self.owners:
                self.owners[category] = [self._next()]
            return [self.actors[index] for index in self.owners[category]]

    def widen(self, category: str) -> bool:
        """Give a category whose actors are behind one more of them; False if all actors own it already."""
        with self.lock:
            owners = self.owners[category]
            if len(self.actors) == len(owners) == self.settings.processes:
                return False
            others = [i for i in range(len(self.actors)) if i not in owners]
            create = len(self.actors) < self.settings.processes
            owners.append(self._create() if create else min(others, key=self._load))
            return True

    def begin(self, shard: int) -> int:
        """Count an attempt at a shard; returns its number, from 1."""
        with self.lock:
            self.attempts[shard] += 1
            self.begun_at[shard] = time.time()
            self.in_hand[shard] = "load"
            return self.attempts[shard]

    def step(self) -> None:
        """A stage is further within its shard."""
        with self.lock:
            self.steps += 1

    def read(self, place: str, image: Image) -> None:
        """Remember an image (uri, version) that could be read from a storage."""
        with self.lock:
            self.images_read[place] = image

    def readable(self) -> dict[str, Image]:
        """By storage, an image that was read from it in this run, now or in an earlier start."""
        with self.lock:
            return dict(self.images_read)

    def tested(self, extractor: str, found: Found) -> None:
        """Note what an extractor found in its self-test."""
        with self.lock:
            self.tests[extractor] = found

    def self_test(self) -> tuple[int, Found | None, bool]:
        """How many extractors were tested, what they found together (None as long as there is none), and whether a
        shard went through the models by now."""
        with self.lock:
            tests, begun = list(self.tests.values()), "extract" in self.spent_by_stage
        if not tests:
            return 0, None, begun
        problem = next((one.problem for one in tests if one.problem is not None), None)
        return len(tests), Found(tests[0].images, max(one.deviation for one in tests), problem), begun

    def spent(self, stage: str, spent: Spent, shard: int | None = None) -> None:
        """Add to what a stage has spent. shard: that has gone through it."""
        with self.lock:
            if shard is not None and stage in _NEXT:
                self.in_hand[shard] = _NEXT[stage]
            elif shard is not None:
                self.in_hand.pop(shard, None)
            known = self.spent_by_stage.get(stage)
            self.spent_by_stage[stage] = spent if known is None else known + spent

    def movement(self) -> Movement:
        """How far the stages are."""
        with self.lock:
            spent, now = self.spent_by_stage, time.time()
            images = {stage: one.rows for stage, one in spent.items()}
            since = {stage: now - one.end for stage, one in spent.items()}
            begun = self.attempts.total()
            in_hand = dict(Counter(self.in_hand.values()))
            tried_again = begun - len(self.attempts)
            return Movement(begun, images, since, dict(spent), in_hand, tried_again, self.steps)

    def begun(self) -> dict[int, float]:
        """Seconds since a loader last began a shard, by shard."""
        with self.lock:
            return {shard: time.time() - at for shard, at in self.begun_at.items()}

    def figures(self) -> dict[str, Any]:
        """What was counted: by stage, shards that were tried again, owners of the categories."""
        with self.lock:
            again = {shard: count for shard, count in self.attempts.items() if count > 1}
            return {"spent": dict(self.spent_by_stage), "tried_again": again, "owners": dict(self.owners)}

    def _next(self) -> int:
        """The actor of a new category: an idle one, else a new one while there may be more, else the least laden."""
        least = min(range(len(self.actors)), key=self._load, default=None)
        if least is not None and (self._load(least) == 0 or len(self.actors) >= self.settings.processes):
            return least
        return self._create()

    def _load(self, index: int) -> int:
        return sum(index in owners for owners in self.owners.values())

    def _create(self) -> int:
        from jobs.audit.score import Scorer

        actor = ray.remote(Scorer).options(
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            **self.settings.options,
        )
        self.actors.append(actor.remote(self.settings))
        return len(self.actors) - 1
