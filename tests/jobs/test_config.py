"""The settings of an audit at the door: what is taken, what is refused, and what belongs to the fingerprint."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.audit.config import AuditConfig, ErrorBudget


@pytest.mark.parametrize(
    ("text", "budget", "said"),
    [
        ("1%", ErrorBudget(share=0.01), "1%"),
        ("0.01", ErrorBudget(share=0.01), "1%"),
        ("0.5%", ErrorBudget(share=0.005), "0.5%"),
        ("100%", ErrorBudget(share=1.0), "100%"),
        ("1.0", ErrorBudget(share=1.0), "100%"),
        ("0%", ErrorBudget(share=0.0), "0%"),
        ("0.0", ErrorBudget(share=0.0), "0%"),
        (".5", ErrorBudget(share=0.5), "50%"),
        ("25", ErrorBudget(count=25), "25"),
        ("1", ErrorBudget(count=1), "1"),
        ("0", ErrorBudget(count=0), "0"),
        ("1000000", ErrorBudget(count=1_000_000), "1000000"),
    ],
)
def test_an_error_budget_is_a_share_or_a_count(text: str, budget: ErrorBudget, said: str) -> None:
    assert ErrorBudget.parse(text) == budget
    assert str(budget) == said


@pytest.mark.parametrize(
    "text",
    ["", "%", "-1", "-1%", "-0.1", "1.5", "25.0", "101%", "one", "1%%", "% 1", "0x10", "1e-2", "nan", "nan%", "inf",
     "inf%", "-inf%", "1,5", "0,01", "1/100", "None"],
)  # fmt: skip
def test_anything_else_is_no_error_budget(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--max-failed "):
        ErrorBudget.parse(text)


@given(st.text(max_size=8))
def test_no_text_gives_an_impossible_budget(text: str) -> None:
    try:
        budget = ErrorBudget.parse(text)
    except ValueError:
        return
    assert (budget.share is None) != (budget.count is None)
    assert budget.share is None or 0 <= budget.share <= 1
    assert budget.count is None or budget.count >= 0


@pytest.mark.parametrize(
    ("text", "rows", "most"),
    [
        ("1%", 100, 1),
        ("1%", 99, 0),
        ("1%", 199, 1),
        ("1%", 1_000_000, 10_000),
        ("0%", 1000, 0),
        ("0", 1000, 0),
        ("25", 10, 10),
        ("25", 1000, 25),
        ("100%", 7, 7),
        ("50%", 7, 3),
        ("7%", 100, 7),
        ("1%", 0, 0),
    ],
)
def test_as_many_as_the_budget_may_fail_and_no_more(text: str, rows: int, most: int) -> None:
    budget = ErrorBudget.parse(text)
    assert not budget.exceeded(most, rows)
    if most < rows:
        assert budget.exceeded(most + 1, rows)


def test_a_share_is_held_to_the_row() -> None:
    for rows in (100, 200, 1000):
        for percent in range(101):
            assert not ErrorBudget.parse(f"{percent}%").exceeded(percent * rows // 100, rows)


def config(**changes: Any) -> AuditConfig:
    return AuditConfig(**{"manifest": "s3://b/m.csv", "bundle": "/bundle", "output": "/out", **changes})


def test_what_is_set_when_nothing_is_said() -> None:
    got = config().model_dump()
    assert got == {
        "manifest": "s3://b/m.csv",
        "also": (),
        "map": None,
        "base": None,
        "pattern": None,
        "inventory_date": None,
        "where": None,
        "sample": None,
        "since": None,
        "bundle": "/bundle",
        "output": "/out",
        "run_date": None,
        "name": "audit",
        "heatmaps": "anomalous",
        "format": None,
        "limit": None,
        "shard_rows": None,
        "allow": (),
        "max_failed": {"share": 0.01, "count": None},
        "max_failed_per_category": None,
        "stall_timeout": 1800.0,
        "device": "auto",
        "precision": "auto",
        "trust_declared": False,
        "min_confidence": 0.5,
        "backbone_weights": None,
        "backbone_form": None,
        "accept_code_change": False,
        "max_bytes": 67_108_864,
        "max_pixels": 100_000_000,
        "micro_batch": None,
        "price_per_node_hour": None,
        "scoring": "actors",
        "fetch_threads": 16,
        "decode_timeout": 30.0,
        "scorers": None,
        "extractors": None,
        "load_cpus": None,
        "node_timeout": 900.0,
        "placement": "auto",
        "object_store_memory": None,
    }


@pytest.mark.parametrize("field", ["manifest", "bundle", "output"])
def test_places_have_one_spelling(field: str) -> None:
    for given_as, kept in [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket/", "s3://bucket"),
        ("/a/../b/", "/b"),
        ("file:///a/b", "/a/b"),
    ]:
        assert getattr(config(**{field: given_as}), field) == kept
    with pytest.raises(ValidationError, match="must not be empty"):
        config(**{field: ""})
    with pytest.raises(ValidationError):
        config(**{field: None})
    with pytest.raises(ValidationError, match="Field required"):
        AuditConfig(**{k: v for k, v in {"manifest": "m", "bundle": "b", "output": "o"}.items() if k != field})


@pytest.mark.parametrize("name", ["audit", "A", "0", "line-2_b", "x" * 64])
def test_names_fit_for_a_folder(name: str) -> None:
    assert config(name=name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "_a",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a b",
        "a.b",
        "a\n",
        "\na",
        "é",
        "a=b",
        "x" * 65,
        "a%41",
        "a:b",
        "٣",
        "a\0",
    ],
)
def test_names_unfit_for_a_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="only letters, digits, '_' and '-', at most 64"):
        config(name=name)


@pytest.mark.parametrize(
    ("field", "lowest", "highest"),
    [
        ("limit", 1, None),
        ("shard_rows", 1, 4096),
        ("min_confidence", 0.0, 1.0),
        ("max_bytes", 1, None),
        ("max_pixels", 1, None),
        ("micro_batch", 1, None),
        ("fetch_threads", 1, 256),
        ("scorers", 1, None),
        ("object_store_memory", 268_435_456, None),
    ],
)
def test_numbers_have_bounds(field: str, lowest: float, highest: float | None) -> None:
    assert getattr(config(**{field: lowest}), field) == lowest
    step = 0.001 if isinstance(lowest, float) else 1
    for wrong in (lowest - step, -1, "many", math.nan):
        with pytest.raises(ValidationError) as caught:
            config(**{field: wrong})
        assert caught.value.errors()[0]["loc"] == (field,)
    if highest is not None:
        assert getattr(config(**{field: highest}), field) == highest
        with pytest.raises(ValidationError):
            config(**{field: highest + step})


@pytest.mark.parametrize("wrong", [0, 0.0, -1, "soon"])
def test_the_timeout_is_positive(wrong: object) -> None:
    with pytest.raises(ValidationError):
        config(decode_timeout=wrong)


def test_the_timeout_is_finite() -> None:
    with pytest.raises(ValidationError):
        config(decode_timeout=math.inf)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heatmaps": "some"},
        {"heatmaps": None},
        {"format": "xlsx"},
        {"format": "CSV"},
        {"device": "cuda:0"},
        {"device": "gpu"},
        {"precision": "float16"},
        {"precision": "bf16"},
        {"backbone_form": "v2"},
        {"run_date": "2026-02-30"},
        {"run_date": "yesterday"},
        {"trust_declared": "perhaps"},
        {"allow": "s3://bucket"},
        {"max_failed": "1%"},
        {"limit": 1.5},
        {"threads": 3},
        {"Manifest": "x"},
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**wrong)
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


@pytest.mark.parametrize(
    "budget", [{"share": 1.5}, {"share": -0.1}, {"count": -1}, {"share": 0.1, "count": 3}, {"rows": 3}]
)
def test_a_budget_given_as_fields_is_held_to_the_same_rules(budget: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(max_failed=budget)


def test_a_configuration_does_not_change() -> None:
    made = config(run_date="2026-03-14")
    assert made.run_date == date(2026, 3, 14)
    with pytest.raises(ValidationError, match="frozen"):
        made.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        made.max_failed.share = 0.5


RESULT = {
    "heatmaps": ("anomalous", "all"),
    "limit": (None, 5),
    "allow": ([], ["s3://a", "/b"]),
    "trust_declared": (False, True),
    "min_confidence": (0.5, 0.25),
    "max_bytes": (67_108_864, 5),
    "max_pixels": (100_000_000, 5),
}


def test_result_settings_are_these() -> None:
    assert config().result_settings() == {name: usual for name, (usual, _) in RESULT.items()}


@pytest.mark.parametrize("name", RESULT)
def test_result_settings_follow_the_configuration(name: str) -> None:
    other = RESULT[name][1]
    changed = config(**{name: tuple(other) if isinstance(other, list) else other}).result_settings()
    assert changed == {**config().result_settings(), name: other}


def test_what_changes_no_result_is_not_among_the_result_settings() -> None:
    same = config(
        shard_rows=7, fetch_threads=3, micro_batch=1, scorers=2, device="cpu", max_failed=ErrorBudget(count=3),
        object_store_memory=2**29, run_date="2026-03-14", name="b", accept_code_change=True, decode_timeout=1,
    )  # fmt: skip
    assert same.result_settings() == config().result_settings()


@pytest.mark.parametrize(
    ("output", "taken"), [("audit", False), ("./audit", False), ("/audit", True), ("s3://b/a", True)]
)
def test_a_submitted_job_writes_where_the_results_stay(
    output: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config(output=output).output.endswith("a" if output.startswith("s3") else "audit")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    if taken:
        config(output=output)
        return
    with pytest.raises(ValidationError, match="give an absolute path on storage that every node sees"):
        config(output=output)


def test_images_that_are_remembered_are_named_after_where_they_are() -> None:
    given = {"manifest": "m.csv", "bundle": "b", "output": "o"}
    assert AuditConfig(**given, since="last-run").sources.absolute
    assert not AuditConfig(**given, since="2026-03-14").sources.absolute
