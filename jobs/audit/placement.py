"""Which nodes of a cluster work for which stages: those with the label ``line-audit/pool``, by its value.

``load`` nodes fetch, decode, render and write; ``models`` nodes route, extract and score; ``both`` do all of it. Where
no node has the label, as on one machine, every node does everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ray.autoscaler.sdk import request_resources

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.cluster_session import working_nodes

POOL = "line-audit/pool"
LOAD, MODELS, BOTH = "load", "models", "both"
LOOK_SECONDS = 2.0

Choice = Literal["auto", "pools", "anywhere"]
Node = dict[str, Any]


@dataclass(frozen=True)
class Placement:
    """Which nodes do which work, and what Ray is told of it. pools: whether labels count."""

    pools: bool

    @property
    def load(self) -> dict[str, Any]:
        """Options of loading and writing. A node for models does it if no node for loading is alive, so that a run
        outlives them. (Ray 2.60 takes the second choice if the first has no node, not if its nodes are busy; and
        for one shard or so when one of several has just died.)
        """
        if not self.pools:
            return {}
        return {"label_selector": _either(LOAD), "fallback_strategy": [{"label_selector": _either(MODELS)}]}

    @property
    def models(self) -> dict[str, Any]:
        """Options of routing, extraction and scoring, which no other node does, so that no other one holds models."""
        return {"label_selector": _either(MODELS)} if self.pools else {}

    def loading(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of the nodes that load and write."""
        found = list(nodes)
        return ([n for n in found if pool_of(n) in (LOAD, BOTH)] or self.modelling(found)) if self.pools else found

    def modelling(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of the nodes that hold models."""
        return [node for node in nodes if not self.pools or pool_of(node) in (MODELS, BOTH)]


def _either(pool: str) -> dict[str, str]:
    return {POOL: f"in({pool},{BOTH})"}


def pool_of(node: Node) -> str | None:
    """The pool of a node of ``ray.nodes()``."""
    label: str | None = node.get("Labels", {}).get(POOL)
    return label


def placement(choice: Choice) -> Placement:
    """``pools``: labels count, also before the first node that has one comes. ``auto``: if a node has one now."""
    if choice != "auto":
        return Placement(choice == "pools")
    return Placement(any(pool_of(node) is not None for node in working_nodes()))


@dataclass(frozen=True)
class Wanted:
    """What a run wants of a cluster that grows, at least: GPUs for models, or CPUs where there is none, and CPUs for
    loading. patience: seconds to wait for them."""

    models: int | None
    load_cpus: int | None
    patience: float


def await_nodes(wanted: Wanted, device: str, where: Placement, say: Callable[[str], None]) -> None:
    """Ask an autoscaler for the nodes that are wanted and wait for them; without one, for nodes that join anyway.

    Goes on with what is there after ``wanted.patience`` seconds. Raises AuditError if not one extractor finds a place.
    """
    if wanted.models is None and wanted.load_cpus is None:
        return
    resource = "GPU" if device == "cuda" else "CPU"
    need = {MODELS: wanted.models or 1, LOAD: wanted.load_cpus or 0}

    def there() -> dict[str, int]:
        nodes = working_nodes()
        return {
            MODELS: int(_sum(where.modelling(nodes), resource)),
            LOAD: int(_sum([node for node in where.loading(nodes) if pool_of(node) != MODELS], "CPU")),
        }

    if not _lack(need, there()):
        return
    model: dict[str, float] = {"CPU": 1, "GPU": 1} if device == "cuda" else {"CPU": 1}
    bundles = [model] * need[MODELS]
    selectors = [where.models.get("label_selector", {})] * need[MODELS]
    bundles += [{"CPU": 1}] * need[LOAD]
    selectors += [where.load.get("label_selector", {})] * need[LOAD]
    say(f"waiting for nodes: {_told(_lack(need, there()), resource)}")
    deadline = time.monotonic() + wanted.patience
    request_resources(bundles=bundles, bundle_label_selectors=selectors)
    try:
        while (lack := _lack(need, there())) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
    finally:
        request_resources(bundles=[])  # the stages hold the nodes now; idle ones may go
    if not lack:
        return
    missing = f"after {wanted.patience:.0f} s the cluster still lacks {_told(lack, resource)} (--node-timeout)"
    if there()[MODELS] == 0:
        raise AuditError(exits.FAILED, f"{missing}; nothing was scored, the same command resumes the run")
    say(f"{missing}; going on with what is there")


def _sum(nodes: Iterable[Node], resource: str) -> float:
    return sum(node["Resources"].get(resource, 0) for node in nodes)


def _lack(need: dict[str, int], there: dict[str, int]) -> dict[str, int]:
    return {pool: count - there[pool] for pool, count in need.items() if there[pool] < count}


def _told(lack: dict[str, int], resource: str) -> str:
    units = {MODELS: f"{resource}s for models", LOAD: "CPUs for loading"}
    return ", ".join(f"{count} {units[pool]}" for pool, count in lack.items())
