"""Calibration, decision and the choice of device and precision."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_core import device
from anomaly_core.calibration import Threshold, ThresholdRule, conformal, mean_plus_3sigma, p_value
from anomaly_core.decision import DecisionRule
from anomaly_core.device import full_float32, resolve_device, resolve_precision
from tests.reference import pipeline

# ------------------------------------------------------------------------------------------------ calibration


def test_mean_plus_3sigma_by_hand() -> None:
    assert mean_plus_3sigma([2, 4, 4, 4, 5, 5, 7, 9]) == 5 + 3 * 2
    assert mean_plus_3sigma([0.25]) == 0.25
    assert mean_plus_3sigma(np.full(1000, 0.1, dtype=np.float32)) == pytest.approx(0.1, rel=1e-6)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40))
def test_mean_plus_3sigma_equals_the_restatement(scores: list[float]) -> None:
    want = pipeline.thresholds({"x": scores})["x"]
    assert mean_plus_3sigma(scores) == pytest.approx(want, rel=1e-9)
    assert mean_plus_3sigma(scores) >= statistics.fmean(scores) * (1 - 1e-12)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf], [1.0, -math.inf]])
def test_a_threshold_needs_finite_scores(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one score"):
        mean_plus_3sigma(scores)


@pytest.mark.parametrize(
    ("count", "share", "rank", "promised"),
    [
        (99, 0.01, 99, 0.01),  # ceil(0.99 x 100)
        (100, 0.01, 100, 0.01),  # ceil(0.99 x 101) = ceil(99.99)
        (199, 0.01, 198, 0.01),
        (19, 0.05, 19, 0.05),
        (18, 0.05, 18, 1 / 19),  # too few: the smallest share that 18 scores support
        (1, 0.01, 1, 0.5),
        (9, 0.3, 7, 0.3),
    ],
)
def test_conformal_takes_the_rank_and_says_what_it_can_promise(
    count: int, share: float, rank: int, promised: float
) -> None:
    scores = np.random.default_rng(count).permutation(np.arange(1, count + 1, dtype=np.float32))
    found = conformal(scores, share)
    assert rank < found.value < rank + 1e-3
    assert found.promised_false_rejects == pytest.approx(promised)
    # What is above the threshold has a p-value within the share, what is below has not.
    calibration = [float(score) for score in scores]
    assert p_value(rank, calibration) > promised - 1e-12
    assert p_value(rank + 0.5, calibration) <= promised + 1e-12


def test_conformal_keeps_its_promise_on_average_with_ties_too() -> None:
    generator = np.random.default_rng(0)
    for draw in (lambda n: generator.gamma(2, size=n), lambda n: generator.integers(0, 12, n)):
        for share in (0.05, 0.2):
            rejected = []
            for _ in range(4000):
                scores = draw(60).astype(np.float32)
                rejected.append(np.mean(scores[40:] >= conformal(scores[:40], share).value))
            assert np.mean(rejected) <= share + 0.004
            if draw(1).dtype.kind == "f":
                assert np.mean(rejected) >= share - 1 / 41 - 0.004


@pytest.mark.parametrize("text", ["mean_plus_3sigma", "conformal:0.01", "conformal:0.125"])
def test_rules_are_written_as_they_are_read(text: str) -> None:
    assert str(ThresholdRule.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "conformal", "conformal:", "conformal:0", "conformal:1", "conformal:1.5", "conformal:nan", "conformal:1/0",
     "conformal:-0.1", "conformal:x", "mean_plus_3sigma:3", "f1", "Conformal:0.1"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rule for a threshold: write mean_plus_3sigma, or conformal"):
        ThresholdRule.parse(text)


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = ThresholdRule.parse(f"conformal:{text}")
    except ValueError:
        return
    assert 0 < rule.false_rejects < 1  # type: ignore[operator]


def test_rules_give_thresholds() -> None:
    scores = [2, 4, 4, 4, 5, 5, 7, 9]
    assert ThresholdRule.parse("mean_plus_3sigma")(scores) == Threshold(11.0, None)
    assert ThresholdRule.parse("conformal:0.25")(scores) == conformal(scores, 0.25)
    with pytest.raises(ValueError, match="at least one score"):
        ThresholdRule.parse("conformal:0.25")([])


def test_p_value_counts_itself_and_ties() -> None:
    calibration = [0.1, 0.2, 0.3, 0.4]
    assert p_value(0.05, calibration) == 1.0
    assert p_value(0.5, calibration) == pytest.approx(1 / 5)
    assert p_value(0.3, calibration) == pytest.approx(3 / 5)
    assert p_value(0.3000001, calibration) == pytest.approx(2 / 5)
    assert p_value(0.5, []) == 1.0


def test_p_values_of_normal_images_are_valid() -> None:
    """Over exchangeable scores, a share of at most a of the p-values is at most a."""
    scores = list(np.random.default_rng(0).gamma(2, size=60))
    values = [p_value(score, scores[:i] + scores[i + 1 :]) for i, score in enumerate(scores)]
    for level in (0.05, 0.1, 0.5):
        assert sum(value <= level for value in values) / len(values) <= level


# --------------------------------------------------------------------------------------------------- decision

HIGH = "score_at_or_above_threshold"
LOW = "low_routing_confidence"
OTHER = "declared_category_disagrees"


@pytest.mark.parametrize(
    ("score", "confidence", "declared", "decision", "reason"),
    [
        (0.9, 0.9, None, "normal", None),
        (0.9, 0.9, "cap", "normal", None),
        (0.9, 0.5, "cap", "normal", None),
        (0.9, 0.4999, None, "review", LOW),
        (0.9, 0.9, "gear", "review", OTHER),
        (0.9, 0.9, "", "review", OTHER),
        (0.9, 0.1, "gear", "review", f"{LOW},{OTHER}"),
        (1.0, 0.9, None, "anomalous", HIGH),
        (1.1, 0.9, "cap", "anomalous", HIGH),
        (1.1, 0.1, None, "anomalous", f"{HIGH},{LOW}"),
        (1.1, 0.9, "gear", "anomalous", f"{HIGH},{OTHER}"),
        (1.1, 0.1, "gear", "anomalous", f"{HIGH},{LOW},{OTHER}"),
        (math.nextafter(1.0, 0.0), 0.9, None, "normal", None),
    ],
)
def test_decisions(score: float, confidence: float, declared: str | None, decision: str, reason: str | None) -> None:
    rule = DecisionRule(min_confidence=0.5)
    assert rule(score, 1.0, confidence=confidence, category="cap", declared=declared) == (decision, reason)


@pytest.mark.parametrize(
    ("score", "want"), [(1.0, ("anomalous", HIGH)), (2.0, ("anomalous", HIGH)), (0.99, ("normal", None))]
)
def test_the_references_rule_knows_no_doubts(score: float, want: tuple[str, str | None]) -> None:
    rule = DecisionRule(reference=True, min_confidence=0.99)
    assert rule(score, 1.0, confidence=0.01, category="cap", declared="gear") == want


@pytest.mark.parametrize("reference", [True, False])
def test_a_score_that_is_no_number_never_lets_a_part_pass(reference: bool) -> None:
    try:
        decision, _ = DecisionRule(reference=reference)(math.nan, 1.0, confidence=0.9, category="cap", declared=None)
    except ValueError:
        return
    assert decision != "normal"


def test_a_confidence_that_is_no_number_is_a_doubt() -> None:
    decision, _ = DecisionRule()(0.1, 1.0, confidence=math.nan, category="cap", declared=None)
    assert decision == "review"


# ----------------------------------------------------------------------------------------------------- device


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_cuda_where_it_is(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device("auto") == resolve_device() == ("cuda" if there else "cpu")
    assert resolve_device("cpu") == "cpu"


def test_cuda_that_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"--device cuda: .*no CUDA device.*--device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cuda") == "cuda"


@pytest.mark.parametrize("word", ["gpu", "", "CPU", "cuda:0", "mps"])
def test_other_devices_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"--device {word}: must be auto, cpu or cuda"):
        resolve_device(word)


AMX, AVX512 = QUERIES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.mark.parametrize(
    ("choice", "where", "supported", "want"),
    [
        ("auto", "cuda", "", "bfloat16"), ("auto", "cpu", AMX, "bfloat16"), ("auto", "cpu", AVX512, "bfloat16"),
        ("auto", "cpu", "", "float32"), ("float32", "cuda", AMX, "float32"), ("bfloat16", "cpu", "", "bfloat16"),
    ],
)  # fmt: skip
def test_precision(monkeypatch: pytest.MonkeyPatch, choice: str, where: str, supported: str, want: str) -> None:
    for query in QUERIES:
        monkeypatch.setattr(torch.cpu, query, lambda query=query: query == supported, raising=False)
    assert resolve_precision(choice, where) == want
    assert device.DTYPES[want] in (torch.float32, torch.bfloat16)


def test_without_the_queries_for_bfloat16_the_answer_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for query in QUERIES:
        monkeypatch.delattr(torch.cpu, query, raising=False)
    assert resolve_precision("auto", "cpu") == "float32"


@pytest.mark.parametrize("word", ["float16", "fp32", "", "half"])
def test_other_precisions_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"--precision {word}: must be auto, float32 or bfloat16"):
        resolve_precision(word, "cpu")


def test_full_float32_switches_tf32_off() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    full_float32()
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
