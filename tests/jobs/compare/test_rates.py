"""Two nights: figures by hand, and against numpy and scipy on the full tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import fisher_exact, ks_2samp

from anomaly_core.comparison import difference, holm
from jobs.compare import rates
from jobs.compare.histograms import BINS
from jobs.compare.rates import RateShift, TwoNights
from jobs.compare.run import Comparison, Settings, compare
from tests.jobs.compare.hand import Row, by_hand, failed, row
from tests.nights import LINES, Night, write_night


def nights(tmp_path: Path, a: list[Row], b: list[Row]) -> TwoNights:
    found = compare(Settings(by_hand(str(tmp_path), "a", a), by_hand(str(tmp_path), "b", b), question="rates"))
    assert found.nights is not None and found.images is None
    return found.nights


def shift(found: TwoNights, kind: str, dimension: str, group: str = "") -> RateShift:
    (one,) = [o for o in found.rates if (o.kind, o.dimension, o.group) == (kind, dimension, group)]
    return one


def test_a_small_table_by_hand(tmp_path: Path) -> None:
    duplicate = failed("a1", "manifest", "duplicate")
    a = [
        row("a1", 0.5),
        duplicate,
        row("a2", 1.5),
        row("a3", None),
        failed("a4", line=None),
        row("a5", 0.4, line="L2", category="pill"),
    ]
    b = [
        row("b1", 1.5),
        row("b2", 1.25),
        row("b3", 0.5, camera=None),
        failed("b4", "score", "score_failed", category="pill"),
    ]
    found = nights(tmp_path, a, b)
    assert shift(found, "anomalous", "all").difference == difference(1, 4, 2, 3)
    assert shift(found, "review", "all").difference == difference(1, 4, 0, 3)
    assert shift(found, "failed", "all").difference == difference(1, 5, 1, 4)
    # A failed row counts in the category that it was routed to, else in the one that was declared.
    assert shift(found, "failed", "category", "bottle").difference == difference(1, 4, 0, 3)
    assert shift(found, "failed", "category", "pill").difference == difference(0, 1, 1, 1)
    assert shift(found, "anomalous", "category", "pill").difference == difference(0, 1, 0, 0)
    assert shift(found, "anomalous", "line", "L2").difference == difference(0, 1, 0, 0)
    assert shift(found, "failed", "line").difference == difference(1, 1, 0, 0)
    assert shift(found, "failed", "camera", "top").difference == difference(1, 5, 1, 3)
    assert [one.group for one in found.rates if one.dimension == "line" and one.kind == "failed"] == ["", "L1", "L2"]
    bottle, pill = found.scores["bottle"], found.scores["pill"]
    assert (bottle.scored_a, bottle.scored_b, bottle.median_a, bottle.median_b) == (2, 3, 2.0, 2.5)
    assert bottle.change == pytest.approx(0.25)
    # At 1.0 A has reached 1/2 and B 1/3, at 2.5 A still 1/2 and B 2/3.
    assert bottle.distance == pytest.approx(1 / 6)
    assert (pill.scored_a, pill.scored_b, pill.median_b, pill.change, pill.distance, pill.p_holm) == (
        1, 0, None, None, None, None,
    )  # fmt: skip
    assert not pill.beyond_chance


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, pd.DataFrame, pd.DataFrame]:
    """Two nights of which line L3 is louder in the second."""
    output = str(tmp_path_factory.mktemp("drawn"))
    a, _ = write_night(output, Night("2026-03-01", rows=6000))
    b, _ = write_night(output, Night("2026-03-02", rows=4000, louder={"L3": 1.5}))
    found = compare(Settings(a.uri, b.uri, drawn=True))
    return found, *(pq.ParquetFile(run.results).read().to_pandas() for run in (a, b))


def test_rates_of_the_full_tables(drawn: tuple[Comparison, pd.DataFrame, pd.DataFrame]) -> None:
    found, *tables = drawn
    assert found.nights is not None and found.question == "rates" and found.shared == 0
    grouped = {
        "all": lambda rows: pd.Series("", rows.index),
        "category": lambda rows: rows["category"].fillna(rows["declared_category"]),
        "line": lambda rows: rows["line"],
        "camera": lambda rows: rows["camera"],
    }
    assert len(found.nights.rates) == 3 * (1 + 3 + 4 + 2)
    p_values = []
    for one in found.nights.rates:
        counts = []
        for rows in tables:
            of = rows[grouped[one.dimension](rows) == one.group]
            of = of if one.kind == "failed" else of[of["status"] == "scored"]
            counts.append((int((of["decision"] == one.kind).sum()), len(of)))
        (count_a, of_a), (count_b, of_b) = counts
        shift = one.difference
        assert (shift.count_a, shift.of_a, shift.count_b, shift.of_b) == (count_a, of_a, count_b, of_b)
        assert shift.p_value == pytest.approx(
            fisher_exact([[count_a, of_a - count_a], [count_b, of_b - count_b]]).pvalue
        )
        p_values.append(shift.p_value)
    assert [one.p_holm for one in found.nights.rates] == holm(p_values)


def test_only_what_was_made_louder_is_beyond_chance(drawn: tuple[Comparison, pd.DataFrame, pd.DataFrame]) -> None:
    found = drawn[0].nights
    assert found is not None
    beyond = {(one.dimension, one.group) for one in found.rates if one.beyond_chance}
    assert {one.kind for one in found.rates if one.beyond_chance} == {"anomalous"}
    assert ("line", "L3") in beyond and ("all", "") in beyond
    assert not beyond & {("line", line) for line in LINES if line != "L3"}
    loud = shift(found, "anomalous", "line", "L3").difference
    assert loud.low is not None and loud.low > 0.03


def test_scores_of_the_full_tables(drawn: tuple[Comparison, pd.DataFrame, pd.DataFrame]) -> None:
    found, *tables = drawn
    assert found.nights is not None and set(found.nights.scores) == {"bottle", "pill", "screw"}
    p_values = []
    for category, one in found.nights.scores.items():
        a, b = (rows.loc[rows["category"] == category, "score"].dropna() for rows in tables)
        assert (one.scored_a, one.scored_b) == (len(a), len(b))
        assert (one.median_a, one.median_b) == (pytest.approx(a.median()), pytest.approx(b.median()))
        assert one.change == pytest.approx(b.median() / a.median() - 1)
        said = ks_2samp(a, b, method="asymp")
        assert one.distance == pytest.approx(said.statistic)
        p_values.append(float(said.pvalue))
    assert [one.p_holm for one in found.nights.scores.values()] == pytest.approx(holm(p_values))


def test_the_distance_of_scores_that_are_the_same_in_both(tmp_path: Path) -> None:
    a, b = [0.1, 0.1, 0.2, 0.2, 0.3], [0.1, 0.2, 0.2, 0.2, 0.4, 0.4]
    found = nights(
        tmp_path,
        [row(f"a{i}", margin) for i, margin in enumerate(a)],
        [row(f"b{i}", margin) for i, margin in enumerate(b)],
    )
    assert found.scores["bottle"].distance == pytest.approx(ks_2samp(a, b).statistic)


def test_histograms_hold_every_scored_image(drawn: tuple[Comparison, pd.DataFrame, pd.DataFrame]) -> None:
    found, *tables = drawn
    assert set(found.histograms) == {"bottle", "pill", "screw"}
    for category, one in found.histograms.items():
        for rows, counts in zip(tables, (one.a, one.b), strict=True):
            margins = rows.loc[rows["category"] == category, "margin"].dropna()
            assert sum(counts) == len(margins) and len(counts) == BINS
            assert counts[0] == (margins < one.upper / BINS).sum()
            assert counts[-1] == (margins >= one.upper * (BINS - 1) / BINS).sum()


def test_groups_beyond_the_largest_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "GROUPS", 2)
    a = [row(f"a{i}", 0.5, line=f"L{i % 3}") for i in range(5)]  # L2 has one row only
    b = [row("b", 0.5, line="L0"), row("c", 0.5, line="L9")]
    found = nights(tmp_path, a, b)
    assert [one.group for one in found.rates if one.dimension == "line" and one.kind == "failed"] == ["L0", "L1"]
    assert found.left_out == {"line": 2}
