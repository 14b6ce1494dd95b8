"""When rows are sent to their scorers, and that the answers do not depend on it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from anomaly_core.decision import DecisionRule
from anomaly_core.scoring import Scored
from jobs.audit.extract import CALL_IMAGES, ExtractSettings, _Shard
from jobs.audit.figures import ProcessorTime, Spent
from jobs.audit.score import Packed
from jobs.bundles import read_bundle
from tests.bundles import random_pixels
from tests.jobs.audit.stages import Deaf

IMAGES, BATCH = 11, 4


class Calls:
    """Stands for the scorer: the score of an image is the mean of its layers. Notes what had been routed by then."""

    def __init__(self) -> None:
        self.routed, self.made = 0, list[tuple[int, int]]()

    def score(self, category: str, file: list[Any], images: Sequence[Packed]) -> tuple[Scored, Spent]:
        self.made.append((self.routed, len(images)))
        scores = np.array([float(layer2.astype(np.float32).mean()) for layer2, _ in images], np.float32)
        nothing = Scored(scores, np.zeros((len(images), 28, 28), np.float32), np.zeros((len(images), 2), np.float32))
        return nothing, Spent(0, 0, 0, len(images), 0, 0, Counter())


def through(bundle_folder: str, eager: bool) -> tuple[pa.Table, Calls]:
    """A shard of one category, and when it was sent."""
    bundle, calls = read_bundle(bundle_folder), Calls()
    extractor = bundle.extractor("cpu", "float32", BATCH)

    def routing(pixels: Any) -> Any:
        calls.routed += len(pixels)
        return extractor(pixels)

    routing.micro_batch = BATCH  # type: ignore[attr-defined]
    stage: Any = SimpleNamespace(
        categories=bundle.categories,
        thresholds=bundle.thresholds,
        extractor=routing,
        own=calls,
        files={"gear": []},
        registry=Deaf(),
        models=threading.Semaphore(),
        processor_time=ProcessorTime(),
    )
    settings = ExtractSettings({}, DecisionRule(False, 0.0), True, "cpu", "float32", 1, 1, BATCH, 1)
    nothing = pa.nulls(IMAGES, pa.string())
    columns = {
        "declared_category": pa.array(["gear"] * IMAGES),
        "width": pa.array([224] * IMAGES),
        "height": pa.array([224] * IMAGES),
        "pixels": pa.array([one.tobytes() for one in random_pixels(IMAGES)], pa.large_binary()),
    }
    table = pa.table(columns | dict.fromkeys(("error_stage", "error_code", "error_message"), nothing))
    return _Shard(stage, table, settings, None, eager).scored(), calls


def test_idle_scorers_get_what_there_is_and_busy_ones_full_calls(bundle: str) -> None:
    (eager, early), (patient, late) = through(bundle, True), through(bundle, False)
    assert early.made == [(4, 4), (8, 4), (11, 3)]
    assert late.made == [(8, CALL_IMAGES), (11, 3)]
    assert eager.equals(patient)
    assert len(set(eager["score"].to_pylist())) == IMAGES
