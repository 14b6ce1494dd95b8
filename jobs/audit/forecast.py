"""How long a run will take and what it will read and cost, from a sample of its images, before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import ray
import torch

from anomaly_core.bundle import Bundle
from anomaly_core.forms import Precision
from anomaly_core.preprocess import ImageError, Limits, decode
from jobs.audit import exits
from jobs.audit.config import AuditConfig
from jobs.audit.exits import AuditError
from jobs.audit.fetch import FetchError, fetch
from jobs.audit.figures import cost
from jobs.audit.placement import Placement, placement
from jobs.audit.stages import NO_MODELS, machine
from jobs.cluster_session import working_nodes
from jobs.machine import cores
from manifests.freeze import FrozenManifest, read_shard

SAMPLE = 24
# Of what the stages could do alone, a run on two cores reaches so much (make bench): the rest is writing and Ray.
EFFICIENCY = 0.8
# From the command to the first scored row, and from the last to the published table of a small run.
START_AND_END_SECONDS = 25.0
GPU_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Forecast:
    """What is expected of a run. sampled: images that were tried; unread: those that failed, with the last reason.

    bytes_per_image: mean of the files; seconds: on the device, of one core (its CPU time) for loading, of one actor for
    the models.
    """

    sampled: int
    unread: int
    reason: str | None
    bytes_per_image: float
    load_seconds: float
    model_seconds: float
    images_per_second: float
    duration_seconds: float
    nodes: int
    cpus: int

    def cost(self, price: float, rows: int) -> dict[str, float | None]:
        """At a price for a node and hour."""
        return cost(self.nodes * self.duration_seconds, rows, price)


def forecast(
    config: AuditConfig,
    bundle: Bundle,
    device: str,
    precision: Precision,
    frozen: FrozenManifest,
    parts: Path,
    to_do: int,
) -> Forecast | None:
    """Fetch, decode and score a sample. parts: the folder of the frozen manifest; to_do: rows that would be scored.

    None if no image could be read.
    """
    allowed = config.allowed
    limits = Limits(config.max_bytes, config.max_pixels)
    rows = _sample(frozen, parts)
    sizes, pictures, reason, load, waiting = [], [], None, 0.0, 0.0
    for row in rows:
        start, spent = time.perf_counter(), time.process_time()
        try:
            data = fetch(row["uri"], allowed, config.max_bytes, row["version_id"], row["etag"]).data
            fetched = time.perf_counter() - start
            pictures.append(decode(data, limits, bundle.preprocessing).pixels)
        except (FetchError, ImageError) as error:
            reason = f"{row['uri']}: {error.message}"
            continue
        waiting += fetched
        load += time.process_time() - spent
        sizes.append(len(data))
    if not pictures:
        return None
    where = placement(config.placement)
    model = _model_seconds_where_the_device_is(bundle, device, precision, config.micro_batch, np.stack(pictures), where)
    nodes, cpus, model_cpus, gpus = _cluster(device, where)
    each_load = load / len(pictures)
    if device == "cuda":
        alone = min(cpus / each_load, max(1, gpus) / model)
    elif model_cpus is not None:
        alone = min(cpus / each_load, model_cpus / model)
    else:
        alone = cpus / (each_load + model)
    # Fetches wait for storage side by side, so many in each task that loads, of which there is one a core at least.
    fetches = cpus * config.fetch_threads * len(pictures) / waiting
    rate = EFFICIENCY * min(alone, fetches)
    duration = to_do / rate + START_AND_END_SECONDS
    unread, mean_size = len(rows) - len(pictures), sum(sizes) / len(sizes)
    return Forecast(len(rows), unread, reason, mean_size, each_load, model, rate, duration, nodes, cpus)


def _sample(frozen: FrozenManifest, parts: Path) -> list[dict[str, str]]:
    """Some rows all over the manifest, without those that cannot be read at all."""
    step = max(1, len(frozen.shards) // SAMPLE)
    shards = frozen.shards[::step][:SAMPLE]
    each = -(-SAMPLE // len(shards))
    rows: list[dict[str, str]] = []
    for number, shard in enumerate(shards):
        table = read_shard(parts / shard.part, shard.row_group).select(["uri", "version_id", "etag", "problem_code"])
        good = [row for row in table.to_pylist() if row["problem_code"] is None]
        # The first rows of all shards are the first ones of the manifest, so each is asked for others.
        places = {int((i + number / len(shards)) * len(good) / each) for i in range(each)}
        rows += [good[place] for place in sorted(places)] if good else []
    count = min(SAMPLE, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _model_seconds_where_the_device_is(
    bundle: Bundle,
    device: str,
    precision: Precision,
    micro_batch: int | None,
    pixels: npt.NDArray[np.uint8],
    where: Placement,
) -> float:
    if device == "cpu" or torch.cuda.is_available():
        return _model_seconds(bundle, device, precision, micro_batch, pixels)
    timed = ray.remote(_model_seconds).options(num_gpus=1, **where.models)
    timing = timed.remote(bundle, device, precision, micro_batch, pixels)
    try:
        seconds: float = ray.get(timing, timeout=GPU_PATIENCE_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(timing)
        raise AuditError(exits.FAILED, "no GPU of the cluster was free to time the models; try again later") from error
    return seconds


def _model_seconds(
    bundle: Bundle, device: str, precision: Precision, micro_batch: int | None, pixels: npt.NDArray[np.uint8]
) -> float:
    """Seconds an image of router, backbone and one autoencoder, in one thread of a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        extractor = bundle.extractor(device, precision, micro_batch)
        scorer = bundle.scorer(bundle.categories[0], device, precision)
        first = extractor(pixels[: extractor.micro_batch])  # the first ones warm up
        scorer(first.layer2, first.layer3)
        start = time.perf_counter()
        for _, routed in extractor.micro_batches(pixels):
            scorer(routed.layer2, routed.layer3)
        return (time.perf_counter() - start) / len(pixels)
    finally:
        torch.set_num_threads(before)


def _cluster(device: str, where: Placement) -> tuple[int, int, int | None, int]:
    """Nodes, CPUs for loading, CPUs for models if they are others, and GPUs that the run would have.

    Of the cluster that is joined, or of this machine.
    """
    if not ray.is_initialized():
        return 1, cores(), None, torch.cuda.device_count() if device == "cuda" else 0
    if not where.modelling(working_nodes()):
        raise AuditError(exits.USAGE, f"{NO_MODELS}; a dry run asks for none, so there is nothing to time")
    has = machine(device, 0, False, where)
    loading = max(1, int(has.cpus if has.load_cpus is None else has.load_cpus))
    return has.nodes, loading, None if has.load_cpus is None else int(has.cpus - has.load_cpus), int(has.gpus)
