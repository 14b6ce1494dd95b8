"""Stage 2, in an actor pool (GPU where there is one): route, extract, send to the category's scorer, decide."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch

from anomaly_core.bundle import Bundle
from anomaly_core.calibration import p_value
from anomaly_core.decision import DecisionRule
from anomaly_core.device import Precision
from anomaly_core.preprocess import SIZE
from anomaly_core.scoring import Scored
from jobs.audit.score import pack

# Calls to scorers that may be unanswered: enough to keep them busy, few enough to bound memory (1 MB an image).
IN_FLIGHT = 4

DECIDED = (
    pa.field("category", pa.string()),
    pa.field("category_confidence", pa.float32()),
    pa.field("route_agrees", pa.bool_()),
    pa.field("score", pa.float64()),
    pa.field("threshold", pa.float64()),
    pa.field("margin", pa.float64()),
    pa.field("p_value", pa.float64()),
    pa.field("decision", pa.string()),
    pa.field("decision_reason", pa.string()),
    pa.field("peak_x", pa.float32()),
    pa.field("peak_y", pa.float32()),
    pa.field("error_map", pa.list_(pa.float16(), 28 * 28)),
)


@dataclass(frozen=True)
class ExtractSettings:
    """What the extract stage needs besides the bundle, which the registry has."""

    calibration: dict[str, list[float]]
    rule: DecisionRule
    trust_declared: bool
    device: str
    precision: Precision
    threads: int
    micro_batch: int


class Extract:
    """A loaded shard to the same rows with category, score and decision. Holds router and backbone."""

    def __init__(self, settings: ExtractSettings, registry: Any):
        self.settings, self.registry = settings, registry
        torch.set_num_threads(settings.threads)
        bundle: Bundle = ray.get(ray.get(registry.bundle.remote())[0])
        self.categories, self.thresholds = bundle.categories, bundle.thresholds
        self.extractor = bundle.extractor(settings.device, settings.precision, settings.micro_batch)
        self.owners: dict[str, tuple[Any, list[Any]]] = {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """One shard in, the same shard out, row for row."""
        start = time.monotonic()
        rows: list[dict[str, Any]] = [{field.name: None for field in DECIDED} for _ in range(len(table))]
        declared = table["declared_category"].to_pylist()
        stages = table["error_stage"].to_pylist()
        for row, stage in zip(rows, stages, strict=True):
            if stage is not None:
                row["decision"] = "failed"
        present = [i for i, stage in enumerate(stages) if stage is None]
        waiting: deque[tuple[list[int], Any]] = deque()
        failed: dict[int, str] = {}
        pixels = table["pixels"].combine_chunks()
        for first in range(0, len(present), self.settings.micro_batch):
            batch = present[first : first + self.settings.micro_batch]
            for category, members, layers in self._route(batch, pixels, declared, rows):
                actor, file = self._owner(category)
                waiting.append((members, actor.score.remote(category, file, *layers)))
                if len(waiting) > IN_FLIGHT:
                    self._settle(waiting.popleft(), rows, table, failed)
        while waiting:
            self._settle(waiting.popleft(), rows, table, failed)
        self.registry.spent.remote("extract", time.monotonic() - start)
        return _join(table, rows, failed)

    def _route(
        self, batch: list[int], pixels: pa.Array, declared: list[str | None], rows: list[dict[str, Any]]
    ) -> list[tuple[str, list[int], tuple[npt.NDArray[Any], npt.NDArray[Any]]]]:
        images = np.stack([np.frombuffer(pixels[i].as_buffer(), np.uint8).reshape(SIZE, SIZE, 3) for i in batch])
        routed = self.extractor(images)
        groups: dict[str, list[int]] = {}
        for position, i in enumerate(batch):
            category = self.categories[int(routed.category[position])]
            said = declared[i]
            rows[i]["category_confidence"] = float(routed.confidence[position])
            rows[i]["route_agrees"] = None if said is None else said == category
            if said is not None and not self.settings.rule.reference:
                if said not in self.categories:
                    rows[i].update(decision="review", decision_reason="unknown_category")
                    continue
                if self.settings.trust_declared:
                    category = said
            rows[i]["category"] = category
            groups.setdefault(category, []).append(position)
        return [
            (
                category,
                [batch[p] for p in positions],
                (pack(routed.layer2[positions]), pack(routed.layer3[positions])),
            )
            for category, positions in groups.items()
        ]

    def _owner(self, category: str) -> tuple[Any, list[Any]]:
        if category not in self.owners:
            self.owners[category] = ray.get(self.registry.owner.remote(category))
        return self.owners[category]

    def _settle(
        self, answer: tuple[list[int], Any], rows: list[dict[str, Any]], table: pa.Table, failed: dict[int, str]
    ) -> None:
        members, reference = answer
        scored: Scored = ray.get(reference)
        for position, i in enumerate(members):
            score = float(scored.score[position])
            row = rows[i]
            if not np.isfinite(score):
                failed[i] = f"the score is {score}"
                row.update(decision="failed")
                continue
            category, threshold = row["category"], self.thresholds[row["category"]]
            said = None if self.settings.trust_declared else table["declared_category"][i].as_py()
            decision, reason = self.settings.rule(
                score, threshold, confidence=row["category_confidence"], category=category, declared=said
            )
            calibration = self.settings.calibration.get(category)
            row.update(
                score=score,
                threshold=threshold,
                margin=score / threshold,
                p_value=p_value(score, calibration) if calibration else None,
                decision=decision,
                decision_reason=reason,
                peak_x=float(scored.peak[position, 0]) * table["width"][i].as_py(),
                peak_y=float(scored.peak[position, 1]) * table["height"][i].as_py(),
                error_map=np.clip(scored.error_map[position].ravel(), 0, 65504).astype(np.float16),
            )


def _join(table: pa.Table, rows: list[dict[str, Any]], failed: dict[int, str]) -> pa.Table:
    if failed:
        loaded = table.select(["error_stage", "error_code", "error_message"]).to_pylist()
        for i, message in failed.items():
            loaded[i] = {"error_stage": "score", "error_code": "score_not_finite", "error_message": message}
        for name in loaded[0]:
            column = pa.array([row[name] for row in loaded], pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, column)
    decided = pa.Table.from_pylist(rows, schema=pa.schema(DECIDED))
    for field in DECIDED:
        table = table.append_column(field, decided[field.name])
    return table
