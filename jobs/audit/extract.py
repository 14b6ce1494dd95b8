"""Stage 2, in an actor pool (GPU where there is one): route, extract, send to the category's scorer, decide."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch

from anomaly_core.bundle import Bundle
from anomaly_core.calibration import p_value
from anomaly_core.decision import UNKNOWN_CATEGORY, DecisionRule, is_unknown
from anomaly_core.forms import Precision
from anomaly_core.known import Known, pooled
from anomaly_core.preprocess import SIZE
from jobs.audit.figures import Meter, ProcessorTime, Spent
from jobs.audit.layers import pack
from jobs.audit.orphans import end_with_parent
from jobs.audit.registry import ScorerSettings
from jobs.audit.score import Packed, Scorer
from jobs.audit.self_test import await_clearance, judge, reference_shard
from jobs.audit.stall import Steps
from jobs.audit.turns import turn
from jobs.monitoring.logs import LogSettings, log_as

_log = logging.getLogger(__name__)
# Images of one category that go to their scorer in one call, and calls that may be unanswered: enough to keep scorers
# busy, few enough to bound memory (1.2 MB an image in bfloat16).
CALL_IMAGES, IN_FLIGHT = 8, 4
# An extractor that spends this much of a shard on waiting for one category asks for another actor for it.
BEHIND = 0.2
ASK_AGAIN_SECONDS = 20.0

DECIDED = (
    pa.field("category", pa.string()),
    pa.field("category_confidence", pa.float32()),
    pa.field("category_distance", pa.float32()),
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
    """What the extract stage needs besides the bundle, which the registry has.

    threads: of torch, by shard. shards_at_once: those that use router and backbone at one time. micro_batch: images at
    once, None for what suits the device. extractors: that must pass the self-test before one begins. own_scorer: score
    in the extracting actor itself.
    """

    calibration: dict[str, list[float]]
    rule: DecisionRule
    trust_declared: bool
    device: str
    precision: Precision
    threads: int
    shards_at_once: int
    micro_batch: int | None
    extractors: int
    own_scorer: ScorerSettings | None = None
    log: LogSettings | None = None


class Extract:
    """A loaded shard to the same rows with category, score and decision. Holds router and backbone.

    Called by several threads, each with a shard: so many of them at once use router and backbone, and the others wait
    for their turn or for their last scores.
    """

    def __init__(self, settings: ExtractSettings, registry: Any):
        end_with_parent()
        log_as(settings.log)
        self.settings, self.registry = settings, registry
        torch.set_num_threads(settings.threads)
        bundle: Bundle = ray.get(ray.get(registry.bundle.remote())[0])
        self.categories, self.thresholds = bundle.categories, bundle.thresholds
        self.extractor = bundle.extractor(settings.device, settings.precision, settings.micro_batch)
        self.products = bundle.known()
        self.own = Scorer(settings.own_scorer) if settings.own_scorer else None
        self.files: dict[str, list[Any]] = {}
        self.known: dict[str, deque[Any]] = {}
        self.known_since = time.monotonic()
        self.lock, self.models = threading.Lock(), threading.Semaphore(settings.shards_at_once)
        self.processor_time = ProcessorTime()
        self.cleared, self.begun = not bundle.references, False
        if bundle.references:
            self._test(bundle)

    def _test(self, bundle: Bundle) -> None:
        """Score the reference images. A failure is told to all when the first shard comes: raised here, in what makes
        the actor, it would only have Ray make another one."""
        # The category's own autoencoder scores an image, wherever the router sends it and however far off it lies.
        settings = replace(self.settings, trust_declared=True)
        found = judge(bundle, _Shard(self, reference_shard(bundle), settings, None, eager=True).scored())
        ray.get(self.registry.tested.remote(ray.get_runtime_context().get_actor_id(), found))
        told = {"images": found.images, "deviation": found.deviation}
        if found.problem is None:
            _log.info("self-test passed", extra=told)
        else:
            _log.error("self-test failed", extra=told | {"reason": found.problem})
        self.processor_time = ProcessorTime()  # the figures of the run are those of its own images

    def owners(self, category: str) -> deque[Any]:
        """The actors that own a category; asked for again from time to time, because there may be more of them."""
        with self.lock:
            if time.monotonic() - self.known_since > ASK_AGAIN_SECONDS:
                self.known, self.known_since = {}, time.monotonic()
            if category not in self.known:
                self.known[category] = deque(ray.get(self.registry.owner.remote(category)))
            return self.known[category]

    def __call__(self, table: pa.Table) -> pa.Table:
        """One shard in, the same shard out, row for row. Raises AuditError if the bundle failed its self-test."""
        if not self.cleared:
            await_clearance(self.registry, self.settings.extractors)
            self.cleared = True
        eager, self.begun = not self.begun, True
        return _Shard(self, table, self.settings, self.products, eager).decided()


@dataclass
class _Call:
    """A call to a scorer: category, rows, and what it will answer."""

    category: str
    members: list[int]
    answer: Any


class _Shard:
    """One shard on its way through the models.

    eager: send what there is after every batch, because scorers have nothing to do yet; else they get full calls.
    """

    def __init__(
        self, stage: Extract, table: pa.Table, settings: ExtractSettings, products: Known | None, eager: bool = False
    ):
        self.stage, self.settings, self.table, self.products, self.eager = stage, settings, table, products, eager
        self.rows: list[dict[str, Any]] = [{field.name: None for field in DECIDED} for _ in range(len(table))]
        self.declared: list[str | None] = table["declared_category"].to_pylist()
        self.sizes = [table[name].to_pylist() for name in ("width", "height")]
        self.collected: dict[str, list[tuple[int, Packed]]] = {}
        self.calls: deque[_Call] = deque()
        self.waited: defaultdict[str, float] = defaultdict(float)
        self.scoring: Spent | None = None
        self.failed: dict[int, str] = {}

    def decided(self) -> pa.Table:
        """All rows through router, backbone and scorers, and what that took to the registry."""
        (shard,) = self.table["shard"].unique().to_pylist()
        log_as(self.settings.log, shard)
        decided = self.scored()
        self._report(shard)
        return decided

    def scored(self) -> pa.Table:
        """All rows through router, backbone and scorers."""
        stages = self.table["error_stage"].to_pylist()
        for row, stage in zip(self.rows, stages, strict=True):
            if stage is not None:
                row["decision"] = "failed"
        present = [i for i, stage in enumerate(stages) if stage is None]
        pixels = self.table["pixels"].combine_chunks()
        step = self.stage.extractor.micro_batch
        further = Steps(self.stage.registry)
        with self.stage.models:
            self.meter, self.present = Meter(self.stage.processor_time), len(present)
            for first in range(0, len(present), step):
                self._route(present[first : first + step], pixels)
                further()
                if self.eager:
                    self._send_all()
        self._send_all()
        while self.calls:
            self._settle(self.calls.popleft())
        return _join(self.table, self.rows, self.failed)

    def _route(self, batch: list[int], pixels: pa.Array) -> None:
        images = np.stack([np.frombuffer(pixels[i].as_buffer(), np.uint8).reshape(SIZE, SIZE, 3) for i in batch])
        with turn():
            routed = self.stage.extractor(images)
        distances = self.products(pooled(routed.layer2, routed.layer3)) if self.products else None
        layer2, layer3 = pack(routed.layer2), pack(routed.layer3)
        for position, i in enumerate(batch):
            index, confidence = int(routed.category[position]), float(routed.confidence[position])
            category = self._category(i, index, confidence, None if distances is None else distances[position])
            if category is None:
                continue
            one = slice(position, position + 1)
            waiting = self.collected.setdefault(category, [])
            waiting.append((i, (layer2[one], layer3[one])))
            if len(waiting) == CALL_IMAGES:
                self._send(category)

    def _category(self, i: int, index: int, confidence: float, distances: npt.NDArray[np.float32] | None) -> str | None:
        """The category whose autoencoder scores the row, or None if there is none for it. distances: from each."""
        row, category, said = self.rows[i], self.stage.categories[index], self.declared[i]
        row["category_confidence"] = confidence
        row["route_agrees"] = None if said is None else said == category
        if said is not None and not self.settings.rule.reference:
            if said not in self.stage.categories:
                row.update(decision="review", decision_reason=UNKNOWN_CATEGORY)
                return None
            if self.settings.trust_declared:
                category = said
        if distances is not None:
            row["category_distance"] = float(distances[self.stage.categories.index(category)])
            if is_unknown(row["category_distance"]):
                row.update(decision="review", decision_reason=UNKNOWN_CATEGORY)
                return None
        row["category"] = category
        return category

    def _send_all(self) -> None:
        for category in list(self.collected):
            self._send(category)

    def _send(self, category: str) -> None:
        members, images = zip(*self.collected.pop(category), strict=True)
        if category not in self.stage.files:
            self.stage.files[category] = ray.get(self.stage.registry.file.remote(category))
        file = self.stage.files[category]
        if self.stage.own is not None:
            answer: Any = self.stage.own.score(category, file, list(images))
        else:
            owners = self.stage.owners(category)
            owners.rotate()  # in turn, where there are several
            answer = owners[0].score.remote(category, file, list(images))
        self.calls.append(_Call(category, list(members), answer))
        if len(self.calls) > IN_FLIGHT:
            self._settle(self.calls.popleft())

    def _report(self, shard: int) -> None:
        spent = self.meter.read(self.present, sum(self.waited.values()))
        _log.info("shard extracted and scored", extra={"images": self.present, "seconds": spent.wall})
        if self.scoring is not None:
            self.stage.registry.spent.remote("score", self.scoring)
            if self.stage.own is not None:  # what its own scorer spent is told apart
                spent = replace(spent, wall=spent.wall - self.scoring.wall, cpu=spent.cpu - self.scoring.cpu)
        self.stage.registry.spent.remote("extract", spent, shard)
        for category, seconds in self.waited.items():
            if seconds > BEHIND * spent.wall:
                self.stage.registry.widen.remote(category)

    def _settle(self, call: _Call) -> None:
        answer = call.answer
        if self.stage.own is None:
            start = time.monotonic()
            answer = ray.get(answer)
            self.waited[call.category] += time.monotonic() - start
        scored, spent = answer
        self.scoring = spent if self.scoring is None else self.scoring + spent
        for position, i in enumerate(call.members):
            score = float(scored.score[position])
            row = self.rows[i]
            if not np.isfinite(score):
                self.failed[i] = f"the score is {score}"
                row.update(decision="failed")
                continue
            category = row["category"]
            threshold = self.stage.thresholds[category]
            said = None if self.settings.trust_declared else self.declared[i]
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
                peak_x=float(scored.peak[position, 0]) * self.sizes[0][i],
                peak_y=float(scored.peak[position, 1]) * self.sizes[1][i],
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
