"""The chain of the audit on Ray Data, and the resources its stages ask for.

One shard is one block from the first stage to the last: no numeric batch size, repartition, limit or filter between
them, because each was measured to split or merge blocks and to lose rows. The stages ask for different amounts of CPU,
or Ray would fuse loading into the extracting actor.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, Dataset

from anomaly_core.device import resolve_device
from jobs.audit.extract import Extract, ExtractSettings
from jobs.audit.figures import NODE_DIGITS, Machine
from jobs.audit.load import LoadSettings, load_shard
from jobs.audit.loop import Paced
from jobs.audit.placement import BOTH, MODELS, POOL, Placement, pool_of
from jobs.audit.write import WriteSettings, write_shard
from jobs.cluster_session import shared_cpus, working_nodes

# A load task decodes one image at a time, but waits for storage too. Two on two cores: with one (0.9) the audit was
# slower, because whenever the extractors had caught up with it a core was idle. EXTRACT_CPUS: of an actor on CPUs, less
# than it uses, because actors that held every CPU of Ray's kept the other stages from running for ever: one of them, a
# load task and some scorers are to find a place on one CPU.
LOAD_CPUS, EXTRACT_CPUS, WRITE_CPUS = 0.6, 0.39, 0.2
# Next to nothing, so that scorers find a place beside actors that hold all CPUs, but not on a node that has none: that
# is a head, which is to do no work.
SCORER_CPUS = 0.001
# Of an extracting actor beside a GPU.
LEAST_CPUS = 0.05
RETRIES = 4
# What an extracting actor on CPUs needs at most, of which half a node's memory is spent.
EXTRACTOR_MEMORY = 1.75 * 2**30
# Shards that an extracting actor takes through the models side by side, and those that wait for their last scores
# meanwhile: without the third, two that end together leave a core idle until the scorer has worked off both.
SHARDS_AT_ONCE, SHARDS_WAITING = 2, 1
# A scorer for four cores: autoencoder, pools and score are a sixth of what an image costs.
EXTRACTORS_PER_SCORER = 2
_NO_GPU = (
    "--device cuda: the Ray cluster has no GPU; use --device cpu or auto, or --extractors N to ask for nodes with GPUs "
    "and wait for them"
)
NO_MODELS = f"no node of the cluster may hold the models: none with CPUs has the label {POOL}={MODELS} or {BOTH}"


@dataclass(frozen=True)
class Resources:
    """How the cluster is divided. extractors: actors, each with so many CPUs and GPUs. threads: of torch, by shard."""

    extractors: int
    extractor_cpus: float
    extractor_gpus: float
    scorers: int
    scorer_cpus: float
    scorer_gpus: float
    threads: int


def cluster_device(choice: str, grows: bool = False) -> str:
    """``auto``, ``cpu`` or ``cuda`` to the device of the extracting actors.

    That of the cluster, if one is joined: its driver often runs on a node without a GPU. Else of this machine.
    grows: GPUs that are not there yet will be asked for.
    Raises ValueError if cuda is asked for and is not there.
    """
    if not ray.is_initialized():
        return resolve_device(choice)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if choice == "cuda" and not gpus and not grows:
        raise ValueError(_NO_GPU)
    if choice == "auto":
        return "cuda" if gpus else "cpu"
    return choice


def divide(device: str, scorers: int | None, where: Placement, most: int | None = None) -> Resources:
    """Resources for the stages, from what the nodes for models have. most: extractors at most.

    On CPUs: an extractor for every two cores, which runs two shards side by side, a thread each, and a scorer process
    for every four. Shards of one thread never wait for one another; one whose threads share the cores with decoding
    did, at every barrier. Scorers hold next to none of Ray's CPUs. On GPUs: one extractor and one scorer process a GPU,
    which they share.
    Raises ValueError if no node may hold the models.
    """
    nodes = [node["Resources"] for node in where.modelling(working_nodes())]
    cpus = int(sum(node["CPU"] for node in nodes))
    if device == "cuda":
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if gpus == 0:
            raise ValueError(_NO_GPU)
        used = min(gpus, most or gpus)
        # A GPU at least has a scorer, or a share of more than 0.3 would find no place beside the extractors. Ray counts
        # in ten thousandths, and shares that were rounded up would not fit.
        count = max(scorers or used, used)
        share = (3000 // -(-count // used)) / 10_000
        # A whole CPU, but where a GPU has one or two of them: loading needs a place there too.
        free = min((one["CPU"] - LOAD_CPUS - count * SCORER_CPUS) / one["GPU"] for one in nodes if one.get("GPU", 0))
        held = min(1.0, max(LEAST_CPUS, int(100 * free) / 100))
        return Resources(used, held, 0.7, count, SCORER_CPUS, share, max(1, cpus // (2 * gpus)))
    if not nodes:
        raise ValueError(f"{NO_MODELS}; --extractors N asks an autoscaler for them")
    extractors = min(sum(map(_extractors, nodes)), most or cpus)
    largest = max(int(node["CPU"]) for node in nodes)  # an actor has a place on one node only
    threads = max(1, min(cpus // extractors, largest) // SHARDS_AT_ONCE)
    processes = scorers or -(-extractors // EXTRACTORS_PER_SCORER)
    return Resources(extractors, round(EXTRACT_CPUS * threads, 2), 0, processes, SCORER_CPUS, 0, threads)


def _extractors(node: dict[str, float]) -> int:
    by_cores = -(-int(node["CPU"]) // SHARDS_AT_ONCE)
    return max(1, min(by_cores, int(node.get("memory", 0) / 2 // EXTRACTOR_MEMORY)))


def machine(device: str, extractors: int, own_scorers: bool, where: Placement) -> Machine:
    """What the stages share, for the figures of a run."""
    nodes = working_nodes()
    cpus, gpus = (sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    models = [node["NodeID"] for node in where.modelling(nodes)]
    loading = where.loading(nodes)
    apart = where.pools and not any(node["NodeID"] in models for node in loading)
    return Machine(
        len(nodes),
        cpus,
        gpus,
        extractors * SHARDS_AT_ONCE,
        device,
        own_scorers,
        sum(node["Resources"]["CPU"] for node in loading) if apart else None,
        {node["NodeID"][:NODE_DIGITS]: pool_of(node) for node in ray.nodes()},  # those too that were lost
    )


def chain(
    shards: list[dict[str, Any]],
    load: LoadSettings,
    extract: ExtractSettings,
    write: WriteSettings,
    registry: Any,
    resources: Resources,
    where: Placement,
) -> Dataset:
    """manifest shards -> load -> route + extract + score -> render + write -> receipts. Lazy: nothing runs yet."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None  # a number would split a shard above it over several blocks
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # the exit code depends on it; wrapped, it arrives without its cause
    # It advises to set the memory of stages, which nobody who runs the job can; how much they need is bounded here.
    context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    # Where a GPU has the models, every wait of a place for loading counts.
    cpus = 0.0 if resources.extractor_gpus else shared_cpus()
    context.custom_execution_callback_classes = [partial(Paced, cpus, len(shards))] if cpus else []
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound retries, whose number is endless by default; pyproject pins below 2.64.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        return _chain(shards, load, extract, write, registry, resources, where)


def _gpus(share: float) -> dict[str, float]:
    return {"num_gpus": share}


def _chain(
    shards: list[dict[str, Any]],
    load: LoadSettings,
    extract: ExtractSettings,
    write: WriteSettings,
    registry: Any,
    resources: Resources,
    where: Placement,
) -> Dataset:
    return (
        ray.data.from_items(shards, override_num_blocks=len(shards))
        .map_batches(
            load_shard,
            batch_size=None,
            batch_format="pyarrow",
            fn_args=(load, registry),
            num_cpus=LOAD_CPUS,
            max_retries=RETRIES,
            **where.load,
        )
        .map_batches(
            Extract,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(extract, registry),
            num_cpus=resources.extractor_cpus,
            # Not num_gpus: with it Ray Data asks for a numeric batch size, which does not keep shards whole.
            ray_remote_args_fn=partial(_gpus, resources.extractor_gpus) if resources.extractor_gpus else None,
            compute=ActorPoolStrategy(
                size=resources.extractors,
                enable_true_multi_threading=True,
                max_concurrent_calls_per_actor=SHARDS_AT_ONCE + SHARDS_WAITING,
                max_tasks_in_flight_per_actor=SHARDS_AT_ONCE + SHARDS_WAITING + 1,
            ),
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
            **where.models,
        )
        .map_batches(
            write_shard,
            batch_size=None,
            batch_format="pyarrow",
            fn_args=(write, registry),
            num_cpus=WRITE_CPUS,
            max_retries=RETRIES,
            **where.load,
        )
    )
