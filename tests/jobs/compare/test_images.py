"""The same images in two runs: figures by hand, and against numpy and scipy on the full tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest, pearsonr, spearmanr

from jobs.compare.images import CategoryFigures, Changes, SameImages
from jobs.compare.run import Comparison, Settings, compare
from tests.jobs.compare.hand import Row, by_hand, failed, image_id, row
from tests.nights import Night, write_night


def same(tmp_path: Path, a: list[Row], b: list[Row], show: int = 12) -> SameImages:
    found = compare(Settings(by_hand(str(tmp_path), "a", a), by_hand(str(tmp_path), "b", b), show=show))
    assert found.images is not None and found.nights is None
    return found.images


def test_a_small_table_by_hand(tmp_path: Path) -> None:
    a = [
        row("kept", 0.5),
        row("kept too", 1.5),
        row("near", 0.98),
        row("far", 0.9),
        row("lost", 1.2),
        row("in doubt", 0.4, "review"),
        row("unknown", 0.7),
        failed("broken"),
        failed("recovers"),
        row("rerouted", 0.5),
        row("only in A", 2.0),
    ]
    b = [
        row("kept", 0.55),
        row("kept too", 1.5),
        row("near", 1.02),
        row("far", 1.01),
        row("lost", 0.3),
        row("in doubt", 0.4, "normal"),
        row("unknown", None),
        failed("broken"),
        row("recovers", 1.1),
        row("rerouted", 0.4, category="pill"),
        row("only in B", 0.1),
        failed("only in B too"),
    ]
    found = same(tmp_path, a, b)
    assert found.decisions == {
        "normal": {"normal": 2, "anomalous": 2, "review": 1},
        "anomalous": {"anomalous": 1, "normal": 1},
        "review": {"normal": 1},
        "failed": {"failed": 1, "anomalous": 1},
    }
    assert (found.changed.count, found.changed.of) == (6, 9)
    assert found.changes == Changes(near=1, far=3, unscored=2)
    # near and far; lost. What failed in A was not decided there.
    assert (found.only_a, found.only_b) == (1, 2)
    assert found.p_value == 1
    assert (found.rerouted, found.routes) == (1, [("bottle", "pill", 1)])
    assert (found.alone_a, found.alone_b) == ({"anomalous": 1}, {"failed": 1, "normal": 1})
    # By |log of the ratio of margins|: ln 4, ln 1.122, ln 1.041, ln 1; then those without one, by image_id.
    last = sorted(["unknown", "recovers"], key=image_id)
    assert [one.uri for one in found.most] == [
        f"s3://plant/{name}.png" for name in ("lost", "far", "near", "in doubt", *last)
    ]
    assert [one.uri for one in same(tmp_path, a, b, show=2).most] == ["s3://plant/lost.png", "s3://plant/far.png"]
    bottle = found.categories["bottle"]
    assert found.categories == {"bottle": bottle}
    # All that are shared; and those that the bottle's autoencoder scored twice: without four.
    assert (bottle.images, bottle.scored) == (10, 6)
    changes = [0.05 / 0.5, 0, 0.04 / 0.98, 0.11 / 0.9, -0.9 / 1.2, 0]
    assert bottle.median_change == pytest.approx(np.median(changes))
    assert bottle.largest_change == pytest.approx(-0.75)
    assert bottle.changes == found.changes


@pytest.mark.parametrize(("a", "b", "near"), [(0.97, 1.03, 1), (0.9699, 1.01, 0), (0.99, 1.0301, 0)])
def test_near_is_both_scores_within_the_band(tmp_path: Path, a: float, b: float, near: int) -> None:
    found = same(tmp_path, [row("x", a)], [row("x", b)])
    assert found.changes == Changes(near, 1 - near, 0)


def test_duplicates_do_not_multiply(tmp_path: Path) -> None:
    twice = [failed("x", "manifest", "duplicate")] * 3
    found = compare(
        Settings(
            by_hand(str(tmp_path), "a", [row("x", 0.5), *twice, row("y", 0.5)]),
            by_hand(str(tmp_path), "b", [*twice, row("x", 1.5), row("y", 0.5)]),
        )
    )
    assert (found.shared, found.loaded_a.rows, found.loaded_a.duplicates, found.loaded_b.duplicates) == (2, 2, 3, 3)
    assert found.images is not None
    assert found.images.decisions == {"normal": {"anomalous": 1, "normal": 1}}
    assert found.images.alone_a == found.images.alone_b == {}


def test_scores_that_say_nothing_of_correlation(tmp_path: Path) -> None:
    found = same(
        tmp_path,
        [row("x", 0.5), row("y", 0.5), row("z", 0.0, category="pill"), failed("f", declared_category=None)],
        [row("x", 0.6), row("y", 0.7), row("z", 0.2, category="pill"), failed("f", declared_category=None)],
    )
    bottle, pill = found.categories["bottle"], found.categories["pill"]
    assert (bottle.pearson, bottle.spearman, pill.pearson, pill.spearman) == (None, None, None, None)
    assert (pill.scored, pill.median_change, pill.largest_change) == (1, None, None)  # from nothing to something
    assert found.categories[""] == CategoryFigures(1, 0, None, None, None, None, Changes(0, 0, 0), 0, 0)


def test_a_score_of_nothing_changed_most(tmp_path: Path) -> None:
    found = same(tmp_path, [row("x", 0.0), row("y", 0.01)], [row("x", 1.0), row("y", 9.0)])
    assert [one.uri for one in found.most] == ["s3://plant/x.png", "s3://plant/y.png"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, pd.DataFrame]:
    """A night and the same images with scores that are a little different, some of them rounded to be the same; with
    the rows of both, joined by pandas."""
    output = str(tmp_path_factory.mktemp("drawn"))
    a, _ = write_night(output, Night("2026-03-01", "a", rows=3000, seed=1, failed=0.02))
    b, _ = write_night(output, Night("2026-03-01", "b", rows=3000, seed=2, failed=0.02))
    rows = pq.ParquetFile(b.results).read().to_pandas()
    before = pq.ParquetFile(a.results).read().to_pandas().set_index("image_id")["score"].reindex(rows["image_id"])
    noise = np.random.default_rng(3).normal(1, 0.15, len(rows))
    rows["score"] = np.where(rows["score"].notna(), (before.to_numpy() * noise).round(3), np.nan)
    rows["score"] = rows["score"].fillna(rows["threshold"] / 2)
    rows["margin"] = rows["score"] / rows["threshold"]
    anomalous, scored = rows["margin"] >= 1, rows["score"].notna()
    rows.loc[scored, "decision"] = np.where(anomalous[scored], "anomalous", "normal")
    table = pq.ParquetFile(b.results)
    changed = table.schema_arrow.empty_table().from_pandas(rows, table.schema_arrow, preserve_index=False)
    with pq.ParquetWriter(b.results, table.schema_arrow) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata({k: v for k, v in table.metadata.metadata.items() if k != b"ARROW:schema"})
    found = compare(Settings(a.uri, b.uri, show=15, drawn=True))
    left, right = (pq.ParquetFile(run.results).read().to_pandas() for run in (a, b))
    return found, left.merge(right, on="image_id", suffixes=("_a", "_b"))


def test_figures_of_the_full_tables(drawn: tuple[Comparison, pd.DataFrame]) -> None:
    found, rows = drawn
    images = found.images
    assert images is not None and found.shared == 3000 and found.question == "images" and not found.asked
    table = pd.crosstab(rows["decision_a"], rows["decision_b"])
    assert {a: {b: n for b, n in counts.items() if n} for a, counts in table.T.to_dict().items()} == images.decisions
    changed = rows[rows["decision_a"] != rows["decision_b"]]
    either = (rows["status_a"] == "scored") | (rows["status_b"] == "scored")
    assert (images.changed.count, images.changed.of) == (len(changed), either.sum())
    interval = binomtest(len(changed), int(either.sum())).proportion_ci()
    assert (images.changed.low, images.changed.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    both = changed[["margin_a", "margin_b"]].dropna()
    near = ((both - 1).abs() <= 0.03).all(axis=1)
    assert images.changes == Changes(int(near.sum()), int((~near).sum()), len(changed) - len(both))
    assert 0 < images.changes.near < images.changes.far
    decided = rows[(rows["status_a"] == "scored") & (rows["status_b"] == "scored")]
    in_a, in_b = decided["decision_a"] == "anomalous", decided["decision_b"] == "anomalous"
    assert (images.only_a, images.only_b) == ((in_a & ~in_b).sum(), (~in_a & in_b).sum())
    assert images.p_value == pytest.approx(binomtest(images.only_a, images.only_a + images.only_b).pvalue)
    ratio = np.log(changed["margin_b"] / changed["margin_a"]).abs().dropna().sort_values(ascending=False)
    assert len(ratio) > 15
    assert [one.image_id for one in images.most] == changed.loc[ratio.index[:15], "image_id"].to_list()
    assert images.rerouted == (rows["category_a"].notna() & rows["category_b"].notna()
                               & (rows["category_a"] != rows["category_b"])).sum()  # fmt: skip


@pytest.mark.parametrize("category", ["bottle", "pill", "screw"])
def test_correlations_of_the_full_tables(drawn: tuple[Comparison, pd.DataFrame], category: str) -> None:
    found, rows = drawn
    assert found.images is not None
    figures = found.images.categories[category]
    alike = rows[(rows["category_a"] == category) & (rows["category_b"] == category)]
    scores = alike[["score_a", "score_b"]].dropna()
    assert scores["score_b"].duplicated().sum() > 100  # ties
    assert figures.scored == len(scores) > 500
    assert figures.pearson == pytest.approx(pearsonr(scores["score_a"], scores["score_b"]).statistic, abs=1e-9)
    assert figures.spearman == pytest.approx(spearmanr(scores["score_a"], scores["score_b"]).statistic, abs=1e-9)
    change = scores["score_b"] / scores["score_a"] - 1
    assert figures.median_change == pytest.approx(change.median(), abs=1e-9)
    assert figures.largest_change == pytest.approx(change.loc[change.abs().idxmax()])


def test_points_are_drawn_from_both_kinds(drawn: tuple[Comparison, pd.DataFrame]) -> None:
    found, rows = drawn
    both = rows[["margin_a", "margin_b"]].notna().all(axis=1)
    changed = both & (rows["decision_a"] != rows["decision_b"])
    points = [point for point in found.points if point.changed]
    assert sorted((a, b) for a, b, _ in points) == sorted(
        zip(rows["margin_a"][changed], rows["margin_b"][changed], strict=True)
    )
    assert len(found.points) - len(points) == min(2000, int((both & ~changed).sum()))


def test_a_run_against_itself(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=1200, failed=0.01))
    found = compare(Settings(folder.uri, folder.uri))
    assert found.images is not None and found.differing == []
    decisions = record.counts["decisions"]
    assert found.images.decisions == {name: {name: count} for name, count in decisions.items()}
    assert found.images.changed.count == 0 and found.images.changed.of == 1200 - decisions["failed"]
    assert found.images.changes == Changes(0, 0, 0) and found.images.most == []
    assert (found.images.rerouted, found.images.alone_a, found.images.alone_b) == (0, {}, {})
    for one in found.images.categories.values():
        assert (one.pearson, one.spearman) == (pytest.approx(1), pytest.approx(1))
        assert (one.median_change, one.largest_change, one.changes) == (0, 0, Changes(0, 0, 0))
