"""Which nodes work for which stages, and how many are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.audit import exits, placement, stages
from jobs.audit.exits import AuditError
from jobs.audit.placement import POOL, Placement, Wanted, await_nodes
from jobs.audit.stages import divide, machine

POOLS, ANYWHERE = Placement(pools=True), Placement(pools=False)


def node(pool: str | None, cpus: float, gpus: float = 0, name: str = "0123456789") -> dict[str, Any]:
    resources = {"CPU": cpus, "memory": 64 * 2**30} | ({"GPU": gpus} if gpus else {})
    return {"NodeID": name, "Labels": {POOL: pool} if pool else {}, "Resources": resources, "Alive": True}


MIXED = [node("load", 8, name="a" * 10), node("load", 8, name="b" * 10), node("models", 4, 1, name="c" * 10)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A list of nodes that the code sees as the cluster."""
    nodes: list[dict[str, Any]] = []
    for module in (placement, stages):
        monkeypatch.setattr(module, "working_nodes", lambda: nodes)
    monkeypatch.setattr(stages.ray, "nodes", lambda: nodes)
    return nodes


def test_labels_count_where_a_node_has_one_or_when_they_are_asked_for(cluster: list[dict[str, Any]]) -> None:
    assert [placement.placement(choice).pools for choice in ("auto", "pools", "anywhere")] == [False, True, False]
    cluster.append(node(None, 4))
    assert not placement.placement("auto").pools
    cluster.append(node("models", 4))
    assert placement.placement("auto").pools
    assert not placement.placement("anywhere").pools


def test_ray_is_told_of_the_labels_only_where_they_count() -> None:
    assert ANYWHERE.load == ANYWHERE.models == {}
    assert POOLS.models == {"label_selector": {POOL: "in(models,both)"}}, "no other node may hold a model"
    assert POOLS.load == {
        "label_selector": {POOL: "in(load,both)"},
        "fallback_strategy": [{"label_selector": {POOL: "in(models,both)"}}],
    }


def test_nodes_work_by_their_labels() -> None:
    both, head = node("both", 2), node(None, 16)
    assert POOLS.modelling([*MIXED, both, head]) == [MIXED[2], both]
    assert POOLS.loading([*MIXED, both, head]) == [*MIXED[:2], both]
    assert POOLS.loading([MIXED[2], head]) == [MIXED[2]], "without a node for loading, those for models load"
    assert ANYWHERE.loading(MIXED) == ANYWHERE.modelling(MIXED) == MIXED


def test_models_are_divided_among_their_own_nodes(cluster: list[dict[str, Any]]) -> None:
    cluster += MIXED
    found = divide("cpu", None, POOLS)
    assert (found.extractors, found.threads) == (2, 1), "the 16 cores for loading do not count"
    found = divide("cuda", None, POOLS)
    assert (found.extractors, found.extractor_gpus, found.scorer_gpus, found.threads) == (1, 0.7, 0.3, 2)
    assert divide("cpu", None, ANYWHERE).extractors == 10
    cluster[:] = MIXED[:2]
    with pytest.raises(ValueError, match="none with CPUs has the label line-audit/pool=models or both"):
        divide("cpu", None, POOLS)


def test_what_is_shared_is_told_by_pool(cluster: list[dict[str, Any]]) -> None:
    cluster += MIXED
    found = machine("cuda", 1, False, POOLS)
    assert (found.nodes, found.cpus, found.gpus, found.load_cpus) == (3, 20, 1, 16)
    assert found.pools == {"aaaaaaaa": "load", "bbbbbbbb": "load", "cccccccc": "models"}
    assert machine("cuda", 1, False, ANYWHERE).load_cpus is None
    cluster.append(node("both", 4))
    assert machine("cuda", 1, False, POOLS).load_cpus is None, "CPUs that do both are nobody's own"


class Growing:
    """A cluster that grows by a node at every look, and what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, coming: list[dict[str, Any]], there: list[dict[str, Any]]):
        self.coming, self.there, self.asked = iter(coming), there, list[Any]()
        monkeypatch.setattr(placement, "working_nodes", lambda: list(self.there))
        monkeypatch.setattr(placement, "request_resources", lambda **asked: self.asked.append(asked))
        monkeypatch.setattr(placement.time, "sleep", lambda seconds: self._grow(self.coming))

    def _grow(self, coming: Iterator[dict[str, Any]]) -> None:
        self.there += [one] if (one := next(coming, None)) else []


def test_nodes_are_asked_for_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    grown, said = Growing(monkeypatch, [node("models", 4, 1), node("load", 8), node("models", 4, 1)], []), list[str]()
    await_nodes(Wanted(2, 8, 60), "cuda", POOLS, said.append)
    assert said == ["waiting for nodes: 2 GPUs for models, 8 CPUs for loading"]
    asked, released = grown.asked
    assert asked["bundles"] == [{"CPU": 1, "GPU": 1}] * 2 + [{"CPU": 1}] * 8
    selectors = asked["bundle_label_selectors"]
    assert selectors == [{POOL: "in(models,both)"}] * 2 + [{POOL: "in(load,both)"}] * 8
    assert released == {"bundles": []}
    assert len(grown.there) == 3


def test_nobody_is_asked_for_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Growing(monkeypatch, [], list(MIXED))
    await_nodes(Wanted(1, 16, 60), "cuda", POOLS, lambda text: pytest.fail(text))
    await_nodes(Wanted(None, None, 60), "cuda", POOLS, lambda text: pytest.fail(text))
    assert grown.asked == []


def test_a_run_goes_on_with_fewer_nodes_but_not_with_none_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    grown, said = Growing(monkeypatch, [], list(MIXED)), list[str]()
    await_nodes(Wanted(3, None, 0), "cuda", POOLS, said.append)
    assert said[-1] == (
        "after 0 s the cluster still lacks 2 GPUs for models (--node-timeout); going on with what is there"
    )
    grown.there.pop()
    with pytest.raises(AuditError, match="lacks 3 GPUs for models") as error:
        await_nodes(Wanted(3, None, 0), "cuda", POOLS, said.append)
    assert error.value.code == exits.FAILED, "the same command resumes the run"
    assert grown.asked[-1] == {"bundles": []}, "what did not come is not asked for any longer"
