"""Grouping by category: the actors that own the autoencoders.

torch is imported in the actor only: the registry, which creates actors of this class, does without.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import ray

from jobs.audit.figures import Spent, this_node
from jobs.audit.orphans import end_with_parent
from jobs.audit.registry import ScorerSettings
from jobs.audit.turns import turn

if TYPE_CHECKING:
    from anomaly_core.scoring import CategoryScorer, Scored

# Layers of one image, packed.
Packed = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Scorer:
    """Owns the autoencoders of some categories; each is loaded when its first row comes."""

    def __init__(self, settings: ScorerSettings):
        import torch

        end_with_parent()
        self.settings = settings
        torch.set_num_threads(settings.threads)
        self.scorers: dict[str, CategoryScorer] = {}

    def score(self, category: str, file: list[Any], images: list[Packed]) -> tuple[Scored, Spent]:
        """Scores of images of one category, and what they took; CPU seconds are those of this thread.

        file: reference of the files of its autoencoder.
        """
        from anomaly_core.bundle import category_scorer
        from jobs.audit.layers import unpack

        begin, wall, cpu = time.time(), time.monotonic(), time.thread_time()
        settings = self.settings
        if category not in self.scorers:
            self.scorers[category] = category_scorer(
                ray.get(file[0]), category, settings.score, settings.device, settings.precision
            )
        layer2, layer3 = ([unpack(image[i], settings.precision) for image in images] for i in (0, 1))
        with turn():
            scored = self.scorers[category](layer2, layer3)
        wall, cpu = time.monotonic() - wall, time.thread_time() - cpu
        return scored, Spent(wall, cpu, 0, len(images), begin, time.time(), Counter({this_node(): len(images)}))
