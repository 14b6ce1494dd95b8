"""What the stages spend, where the time goes, and what to change next."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

LOADING = ("load", "write")  # stages of the nodes for loading
FULL = 0.85  # of a resource in use: it is what limits
# Of a shard's time with an extractor that is not busy, spent on waiting for scorers: they limit.
WAITING = 0.5
NODE_DIGITS = 8


@dataclass(frozen=True)
class Spent:
    """Of a stage: seconds of its calls, CPU seconds of its processes meanwhile, seconds of waiting for the next stage,
    images, and when (seconds since the epoch) the first call began and the last ended. nodes: images by node."""

    wall: float
    cpu: float
    waited: float
    rows: int
    begin: float
    end: float
    nodes: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.wall + other.wall,
            self.cpu + other.cpu,
            self.waited + other.waited,
            self.rows + other.rows,
            min(self.begin, other.begin),
            max(self.end, other.end),
            self.nodes + other.nodes,
        )


@cache
def this_node() -> str:
    """The first digits of the id of the Ray node that this process runs on; empty outside Ray."""
    import ray  # here: reports and comparisons name its figures, and need no Ray

    return ray.get_runtime_context().get_node_id()[:NODE_DIGITS] if ray.is_initialized() else ""


class ProcessorTime:
    """CPU seconds of this process, told in parts to calls that run side by side."""

    def __init__(self) -> None:
        self.told, self.lock = time.process_time(), threading.Lock()

    def since(self) -> float:
        """CPU seconds since the last call of this method."""
        with self.lock:
            before, self.told = self.told, time.process_time()
            return self.told - before


class Meter:
    """Measures one call of a stage, from its creation to ``read``.

    processor_time: that the process's calls share, where they run side by side; without it the process must do nothing
    else meanwhile.
    """

    def __init__(self, processor_time: ProcessorTime | None = None) -> None:
        self.begin, self.wall = time.time(), time.monotonic()
        self.processor_time = processor_time or ProcessorTime()

    def read(self, rows: int, waited: float = 0.0) -> Spent:
        """What was spent since."""
        wall, cpu = time.monotonic() - self.wall, self.processor_time.since()
        return Spent(wall, cpu, waited, rows, self.begin, time.time(), Counter({this_node(): rows}))


@dataclass(frozen=True)
class Machine:
    """What the stages shared: nodes, CPUs and GPUs in all, shards that are extracted side by side, the device of the
    models, and whether the extracting actors score too.

    load_cpus: of the nodes that load and write, where others hold the models; else None. pools: of the nodes, by id.
    """

    nodes: int
    cpus: float
    gpus: float
    extracted_at_once: int
    device: str
    own_scorers: bool = False
    load_cpus: float | None = None
    pools: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """limiting: the stage that sets the pace. why: the figure that says so. next: what to change."""

    limiting: str
    why: str
    next: str


def analyse(spent: Mapping[str, Spent], machine: Machine) -> Analysis | None:
    """Where the time of a run went, from the first extraction to its end; None if nothing was extracted."""
    extract = spent.get("extract")
    if extract is None or extract.rows == 0 or extract.end <= extract.begin:
        return None
    seconds = extract.end - extract.begin
    whole = max(one.end for one in spent.values()) - min(one.begin for one in spent.values())
    cpu = sum(one.cpu for one in spent.values()) / (machine.cpus * whole)
    for nodes in _pools(spent, machine):
        used = sum(one.cpu for one in nodes.spent.values())
        if used < FULL * nodes.cpus * whole:
            continue
        heaviest = max(nodes.spent, key=lambda stage: nodes.spent[stage].cpu)
        busy, share = 100 * used / (nodes.cpus * whole), 100 * nodes.spent[heaviest].cpu / used
        return Analysis(
            heaviest,
            f"the CPUs{nodes.named} were busy {busy:.0f} % of the time, {share:.0f} % of that with {heaviest}",
            nodes.next,
        )
    scoring = spent["score"].wall if machine.own_scorers and "score" in spent else 0.0
    busy = (extract.wall - extract.waited + scoring) / (machine.extracted_at_once * seconds)
    if busy >= FULL:
        more = "more GPUs, or a larger --micro-batch" if machine.device == "cuda" else "more CPUs or nodes"
        return Analysis("extract", f"the extracting actors were busy {100 * busy:.0f} % of the time", more)
    waiting = extract.waited / extract.wall
    if waiting >= WAITING:
        return Analysis(
            "score",
            f"{100 * waiting:.0f} % of a shard's time in extraction was waiting for scores",
            "more scorers (--scorers)",
        )
    idle = {stage: spent[stage].wall - spent[stage].cpu for stage in ("load", "write") if stage in spent}
    limiting = max(idle, key=lambda stage: idle[stage], default="load")
    said = f"extracting actors busy {100 * busy:.0f} %, CPUs {100 * cpu:.0f} %"
    if idle.get(limiting, 0.0) >= WAITING * seconds:  # read from or written to, by what is waited for longer
        return Analysis(
            limiting,
            ("images came too slowly: " if limiting == "load" else "results and pictures were written too slowly: ")
            + said,
            "more fetches at once (--fetch-threads), storage that answers faster, or more CPUs for decoding"
            if limiting == "load"
            else "storage that takes writes faster, or fewer pictures (--heatmaps)",
        )
    return Analysis(
        "score" if waiting > busy else "extract",
        f"nothing was used up: {said}, waiting for scores {100 * waiting:.0f} % of a shard's time in extraction",
        "a longer run: of a short one, start and end are most",
    )


@dataclass(frozen=True)
class _Pool:
    """Nodes that share stages: what these spent, CPUs, the words for them, and what to add when they are used up."""

    spent: Mapping[str, Spent]
    cpus: float
    named: str
    next: str


def _pools(spent: Mapping[str, Spent], machine: Machine) -> list[_Pool]:
    if machine.load_cpus is None:
        return [_Pool(spent, machine.cpus, "", "more CPUs or nodes; a GPU if route, extract and score are most of it")]
    load = {stage: one for stage, one in spent.items() if stage in LOADING}
    models = {stage: one for stage, one in spent.items() if stage not in LOADING}
    pools = [
        _Pool(load, machine.load_cpus, " of the nodes for loading", "more nodes for loading"),
        _Pool(models, machine.cpus - machine.load_cpus, " of the nodes for models", "more nodes for models, or GPUs"),
    ]
    return [pool for pool in pools if pool.spent and pool.cpus]


def by_node(spent: Mapping[str, Spent], pools: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """For run.json: images of each stage by node, with the node's pool."""
    nodes = sorted({node for one in spent.values() for node in one.nodes})
    return {
        node: {
            "pool": pools.get(node),
            "images": {stage: one.nodes[node] for stage, one in spent.items() if node in one.nodes},
        }
        for node in nodes
    }


def by_stage(spent: Mapping[str, Spent]) -> dict[str, dict[str, Any]]:
    """For run.json: seconds by stage, and CPU milliseconds an image."""
    return {
        stage: {
            "seconds": round(one.wall - one.waited, 3),
            "cpu_seconds": round(one.cpu, 3),
            "waited_seconds": round(one.waited, 3),
            "images": one.rows,
            "cpu_ms_per_image": round(1000 * one.cpu / one.rows, 2) if one.rows else None,
        }
        for stage, one in spent.items()
    }


def timings(
    started: float,
    scored: float,
    finished: float,
    rows: int,
    figures: Mapping[str, Any],
    price: float | None,
    began: float,
    before: float,
) -> dict[str, Any]:
    """For run.json. started, scored, finished: time.monotonic() of this start, when it was planned, scored, committed;
    price: of a node for an hour.

    began: when the command began, seconds since the epoch; before: seconds from there to ``started``. Seconds, rates
    and node-seconds count from the command.

    Rates are of the rows that this start scored: with its start-up, and since the first extraction began.
    """
    command = started - before
    told: dict[str, Any] = {
        "seconds": round(finished - command, 3),
        "plan_seconds": round(before, 3),
        "score_seconds": round(scored - started, 3),
        "commit_seconds": round(finished - scored, 3),
        "rows_scored_now": rows,
        "images_per_second": round(rows / (scored - command), 2) if rows else None,
        "shards_tried_again": {str(k): v for k, v in figures.get("tried_again", {}).items()},
    }
    spent: Mapping[str, Spent] = figures.get("spent", {})
    machine: Machine | None = figures.get("machine")
    if machine is None:
        return told
    told["machine"] = {name: value for name, value in asdict(machine).items() if name != "pools"}
    told["nodes"] = by_node(spent, machine.pools)
    told["stages"] = by_stage(spent)
    if "score" in spent:
        told["seconds_to_first_score"] = round(spent["score"].begin - began, 2)
    analysis = analyse(spent, machine)
    if analysis is not None:
        since_models = max(one.end for one in spent.values()) - spent["extract"].begin
        told["images_per_second_steady"] = round(rows / since_models, 2)
        told["start_up_seconds"] = round(max(0.0, spent["extract"].begin - began), 3)
        told["limiting"] = asdict(analysis)
    told["node_seconds"] = round(machine.nodes * (finished - command), 1)
    if price is not None:
        told["cost"] = cost(told["node_seconds"], rows, price)
    return told


def cost(node_seconds: float, rows: int, price: float) -> dict[str, float | None]:
    """What a run costs at a price for a node and hour, in the currency of the price."""
    total = node_seconds / 3600 * price
    return {
        "price_per_node_hour": price,
        "total": round(total, 4),
        "per_1000_images": round(1000 * total / rows, 5) if rows else None,
    }
