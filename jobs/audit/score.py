"""Grouping by category: scorer actors that own the autoencoders, and the registry that says which owns which."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch

from anomaly_core.bundle import category_scorer
from anomaly_core.device import Precision
from anomaly_core.scoring import CategoryScorer, Scored, ScoreName

# A scorer that dies is started again and its calls repeated: they have no effect but their answer.
RESTARTS = 3


@dataclass(frozen=True)
class ScorerSettings:
    """How the scorer actors run.

    processes: how many actors the categories are packed into. cpus, gpus: what each holds of the cluster's.
    """

    score: ScoreName
    device: str
    precision: Precision
    processes: int
    threads: int
    cpus: float
    gpus: float


class Scorer:
    """Owns the autoencoders of some categories; each is loaded when its first row comes."""

    def __init__(self, settings: ScorerSettings):
        self.settings = settings
        torch.set_num_threads(settings.threads)
        self.scorers: dict[str, CategoryScorer] = {}

    def score(self, category: str, file: list[Any], layer2: npt.NDArray[Any], layer3: npt.NDArray[Any]) -> Scored:
        """Score packed layers (see pack) of one category. file: reference of the bytes of its autoencoder."""
        if category not in self.scorers:
            data = ray.get(file[0])
            self.scorers[category] = category_scorer(
                data, category, self.settings.score, self.settings.device, self.settings.precision
            )
        return self.scorers[category](unpack(layer2, self.settings.precision), unpack(layer3, self.settings.precision))


class Registry:
    """Says which actor owns a category, and creates actors when their first category comes.

    It belongs to the driver: actors that the extractor created would die with the extractor, detached ones would
    outlive the job. It also counts attempts at shards and the seconds that stages spend.
    """

    def __init__(self, settings: ScorerSettings, bundle: list[Any], cae_files: dict[str, Any]):
        """bundle: reference of the bundle without autoencoders, in a list. cae_files: references by category.

        References come in containers, because Ray would fetch bare ones.
        """
        self.settings, self.bundle_reference, self.cae_files = settings, bundle, cae_files
        self.actors: list[Any] = []
        self.owners: dict[str, int] = {}
        self.attempts: Counter[int] = Counter()
        self.seconds: dict[str, float] = {}
        self.lock = threading.Lock()

    def bundle(self) -> list[Any]:
        """Reference of the bundle without its autoencoders."""
        return self.bundle_reference

    def owner(self, category: str) -> tuple[Any, list[Any]]:
        """The handle of the actor that owns a category, and the reference of the category's file."""
        with self.lock:
            if category not in self.owners:
                index = len(self.owners) % self.settings.processes
                if index == len(self.actors):
                    self.actors.append(self._create())
                self.owners[category] = index
            return self.actors[self.owners[category]], [self.cae_files[category]]

    def begin(self, shard: int) -> int:
        """Count an attempt at a shard; returns its number, from 1."""
        with self.lock:
            self.attempts[shard] += 1
            return self.attempts[shard]

    def spent(self, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage."""
        with self.lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def figures(self) -> dict[str, Any]:
        """What was counted: seconds by stage, shards that were tried again, owners of the categories."""
        with self.lock:
            again = {shard: count for shard, count in self.attempts.items() if count > 1}
            return {"seconds": dict(self.seconds), "tried_again": again, "owners": dict(self.owners)}

    def _create(self) -> Any:
        actor = ray.remote(Scorer).options(
            num_cpus=self.settings.cpus,
            num_gpus=self.settings.gpus,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )
        return actor.remote(self.settings)


def pack(layer: torch.Tensor) -> npt.NDArray[Any]:
    """A layer (N, C, H, W) as a contiguous array (N, H, W, C) that Ray ships without a copy; bfloat16 as int16."""
    rows = layer.permute(0, 2, 3, 1).contiguous()
    return (rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows).numpy()


def unpack(array: npt.NDArray[Any], precision: Precision) -> torch.Tensor:
    """The layer again, channels_last, (N, C, H, W). Shares memory with the array, which must not be written to."""
    writeable = array if array.flags.writeable else np.array(array)
    rows = torch.from_numpy(writeable)
    return (rows.view(torch.bfloat16) if precision == "bfloat16" else rows).permute(0, 3, 1, 2)
