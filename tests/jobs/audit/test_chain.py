"""The shape of the chain, and what each stage refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from anomaly_core.decision import DecisionRule
from anomaly_core.preprocess import Limits
from jobs.access import AllowList
from jobs.audit import stages
from jobs.audit.extract import ExtractSettings
from jobs.audit.load import LoadSettings
from jobs.audit.loop import Paced
from jobs.audit.placement import Placement
from jobs.audit.render import RenderSettings, render
from jobs.audit.stages import LOAD_CPUS, Resources, chain, cluster_device, divide
from jobs.audit.write import Write
from tests.jobs.audit.stages import Deaf, write_settings

OPERATORS = ["Input", "MapBatches(load_shard)", "MapBatches(Extract)", "MapBatches(write_shard)"]


ANYWHERE = Placement(pools=False)


def node(cpus: float, gibibytes: float, gpus: float = 0) -> dict[str, Any]:
    return {"Resources": {"CPU": cpus, "memory": gibibytes * 2**30} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "extractors", "scorers", "threads"),
    [
        ([node(1, 8)], 1, 1, 1),
        ([node(2, 20)], 1, 1, 1),
        ([node(3, 20)], 2, 1, 1),
        ([node(16, 100)], 8, 4, 1),
        ([node(16, 100), node(2, 20)], 9, 5, 1),
        ([node(16, 7)], 2, 1, 4),  # memory for two: their threads use the cores
        ([node(2, 1)], 1, 1, 1),
    ],
)
def test_how_cores_are_divided(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], extractors: int, scorers: int, threads: int
) -> None:
    monkeypatch.setattr(stages, "working_nodes", lambda: nodes)
    cores = sum(one["Resources"]["CPU"] for one in nodes)
    found = divide("cpu", None, ANYWHERE)
    assert (found.extractors, found.scorers, found.threads) == (extractors, scorers, threads)
    held = found.extractors * found.extractor_cpus + 7 * found.scorer_cpus
    assert held + LOAD_CPUS <= cores, "the other stages would never run"
    assert divide("cpu", 7, ANYWHERE).scorers == 7
    assert divide("cpu", None, ANYWHERE, most=2).extractors == min(2, extractors)


@pytest.mark.parametrize(
    ("nodes", "most", "threads"),
    [
        (6 * [node(8, 60)], 1, 4),
        (6 * [node(8, 60)], 4, 4),
        (6 * [node(8, 60)], 12, 2),
        ([node(2, 20), node(32, 99)], 1, 16),
    ],
)
def test_an_extractor_finds_a_place_on_one_node(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], most: int, threads: int
) -> None:
    monkeypatch.setattr(stages, "working_nodes", lambda: nodes)
    found = divide("cpu", None, ANYWHERE, most=most)
    assert (found.extractors, found.threads) == (most, threads)
    assert found.extractor_cpus + LOAD_CPUS <= max(one["Resources"]["CPU"] for one in nodes)


@pytest.mark.parametrize(
    ("cpus", "gpus", "held"),
    [(16, 1, 1.0), (16, 8, 1.0), (8, 8, 0.92), (1, 1, 0.39), (3, 2, 1.0), (2, 4, 0.34), (1, 2, 0.19)],
)
def test_loading_finds_a_place_beside_the_extractors_of_gpus(
    monkeypatch: pytest.MonkeyPatch, cpus: int, gpus: int, held: float
) -> None:
    monkeypatch.setattr(stages, "working_nodes", lambda: [node(cpus, 100, gpus)])
    found = divide("cuda", 10, ANYWHERE)
    assert found.extractor_cpus == held
    assert gpus * held + found.scorers * found.scorer_cpus + LOAD_CPUS <= cpus


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("scorers", [None, 1, 2, 7, 8])
def test_scorers_find_a_place_on_the_gpus_beside_the_extractors(
    monkeypatch: pytest.MonkeyPatch, gpus: int, scorers: int | None
) -> None:
    monkeypatch.setattr(stages, "working_nodes", lambda: [node(16, 100, gpus)])
    found = divide("cuda", scorers, ANYWHERE)
    assert (found.extractors, found.scorers) == (gpus, max(scorers or gpus, gpus))
    fit = int((1 - found.extractor_gpus + 1e-9) / found.scorer_gpus)  # on one GPU
    assert fit * gpus >= found.scorers and found.scorer_gpus == round(found.scorer_gpus, 4)


@pytest.mark.parametrize(
    ("gpus", "choice", "device"), [(2, "auto", "cuda"), (2, "cuda", "cuda"), (2, "cpu", "cpu"), (0, "auto", "cpu")]
)
def test_the_cluster_decides_on_the_device_not_the_machine_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, gpus: int, choice: str, device: str
) -> None:
    monkeypatch.setattr(stages.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(stages.ray, "cluster_resources", lambda: {"CPU": 16, "GPU": gpus} if gpus else {"CPU": 16})
    assert cluster_device(choice) == device
    monkeypatch.setattr(stages.ray, "cluster_resources", lambda: {"CPU": 16})
    with pytest.raises(ValueError, match="the Ray cluster has no GPU"):
        cluster_device("cuda")
    assert cluster_device("cuda", grows=True) == "cuda"


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("gpus", "pools", "shared"), [(0.0, False, 2.0), (0.0, True, 0.0), (0.7, False, 2.0), (0.7, True, 0.0)]
)
def test_a_laptop_a_gpu_machine_and_a_cluster_run_the_same_operators(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: float, pools: bool, shared: float
) -> None:
    from ray.data._internal.logical.optimizers import get_execution_plan

    load = LoadSettings(str(tmp_path), AllowList.of("/a/m.csv", []), Limits(), True, 4, 30.0)
    extract = ExtractSettings({}, DecisionRule(), False, "cpu", "float32", 1, 1, 8, 1)
    shards = [
        {"shard": 0, "part": "p", "row_group": 0, "rows": 1},
        {"shard": 1, "part": "p", "row_group": 1, "rows": 1},
    ]
    monkeypatch.setattr(stages, "shared_cpus", lambda: shared)  # none: the driver's node does no work
    dataset = chain(
        shards,
        load,
        extract,
        write_settings(tmp_path, {0: 1, 1: 1}),
        Deaf(),
        Resources(1, 1, gpus, 1, 0, 0, 1),
        Placement(pools),
    )
    plan, callbacks = get_execution_plan(dataset._logical_plan)
    assert [(one.cpus, one.shards) for one in callbacks if isinstance(one, Paced)] == (
        [] if gpus or not shared else [(2.0, 2)]
    )
    operator = plan.dag
    names = []
    while operator is not None:
        names.append(operator.name)
        operator = operator.input_dependencies[0] if operator.input_dependencies else None
    assert names[::-1][-3:] == OPERATORS[1:]
    assert len(names) == 4


@pytest.mark.parametrize(
    ("shards", "planned", "said"),
    [([3, 4], {3: 2, 4: 1}, "of 2 shards"), ([3, 3], {3: 3}, "2 rows reached the writer, 3 planned")],
)
def test_the_writer_refuses_what_is_not_one_whole_shard(
    tmp_path: Path, shards: list[int], planned: dict[int, int], said: str
) -> None:
    table = pa.table({"shard": pa.array(shards, pa.int32())})
    with pytest.raises(RuntimeError, match=said):
        Write(write_settings(tmp_path, planned), Deaf())(table)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_made_is_told_in_its_row(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "error_map": [1.0] * 784,
        "threshold": 0.0,  # no colours are defined for it
        "decision": "anomalous",
        "category": "cap",
        "image_id": "0" * 32,
        "pixels": bytes(224 * 224 * 3),
    }
    render([row], RenderSettings(str(tmp_path), "all"))
    assert (row["heatmap_path"], row["overlay_path"]) == (None, None)
    assert "positive threshold" in row["render_error"]
