"""The same images in two runs: which decisions changed, where, and how the scores agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import duckdb

from anomaly_core.comparison import mcnemar
from anomaly_core.metrics import Rate, rate

# Between precisions, scores differ by at most so much of the threshold, and decisions only within it.
NEAR = 0.03
ROUTES = 20


@dataclass(frozen=True)
class Changes:
    """Images whose decision changed. near: both scores within NEAR of the threshold; far: one at least is not;
    unscored: one run has no score, because the image failed or shows no known product."""

    near: int
    far: int
    unscored: int


@dataclass(frozen=True)
class CategoryFigures:
    """Of the shared images that count in a category in A. scored: by this category's autoencoder in both runs, and of
    those the correlations (None for fewer than two, or scores that are all the same) and the score's change relative to
    A: its median, and the largest one either way. only_a, only_b: anomalous in one run only, decided in both."""

    images: int
    scored: int
    pearson: float | None
    spearman: float | None
    median_change: float | None
    largest_change: float | None
    changes: Changes
    only_a: int
    only_b: int


@dataclass(frozen=True)
class Image:
    """One image whose decision changed. overlay_a, overlay_b: addresses as the tables have them."""

    image_id: str
    uri: str | None
    category_a: str | None
    category_b: str | None
    decision_a: str
    decision_b: str
    score_a: float | None
    score_b: float | None
    margin_a: float | None
    margin_b: float | None
    overlay_a: str | None
    overlay_b: str | None


@dataclass(frozen=True)
class SameImages:
    """decisions: shared images by decision in A and then in B, where there are any. changed: of those that either run
    scored, the share whose decision is another. only_a, only_b: called anomalous by one run only, of
    those that both decided; p_value: McNemar's exact test of them. routes: images by category in A and in B where they
    differ, the most first, no more than ROUTES; rerouted: all of those images. most: that changed most, by the ratio of
    margins. alone_a, alone_b: images of one run only, by decision."""

    decisions: dict[str, dict[str, int]]
    changed: Rate
    changes: Changes
    only_a: int
    only_b: int
    p_value: float
    categories: dict[str, CategoryFigures]
    rerouted: int
    routes: list[tuple[str, str, int]]
    most: list[Image]
    alone_a: dict[str, int]
    alone_b: dict[str, int]


_PAIRS = """
CREATE TABLE pairs AS SELECT image_id, grp, category_a, category_b, decision_a, decision_b, status_a, status_b,
    score_a, score_b, margin_a, margin_b,
    decision_a <> decision_b AS changed,
    status_a = 'scored' OR status_b = 'scored' AS compared,
    status_a = 'scored' AND status_b = 'scored' AS decided,
    category_a = category_b AND score_a IS NOT NULL AND score_b IS NOT NULL AS alike
FROM (SELECT a.image_id, a.grp, a.category AS category_a, b.category AS category_b, a.decision AS decision_a,
             b.decision AS decision_b, a.status AS status_a, b.status AS status_b, a.score AS score_a,
             b.score AS score_b, a.margin AS margin_a, b.margin AS margin_b
      FROM a JOIN b USING (image_id))
"""
# A hair beyond: 1.03 - 1 is more than 0.03 in binary.
_NEAR = f"abs(margin_a - 1) <= {NEAR} + 1e-9 AND abs(margin_b - 1) <= {NEAR} + 1e-9"
_SCORED = "margin_a IS NOT NULL AND margin_b IS NOT NULL"
_CHANGES = f"""
    count(*) FILTER (changed AND {_SCORED} AND {_NEAR}) AS near,
    count(*) FILTER (changed AND {_SCORED} AND NOT ({_NEAR})) AS far,
    count(*) FILTER (changed AND NOT ({_SCORED})) AS unscored,
    count(*) FILTER (decided AND decision_a = 'anomalous' AND decision_b <> 'anomalous') AS only_a,
    count(*) FILTER (decided AND decision_b = 'anomalous' AND decision_a <> 'anomalous') AS only_b
"""
_CATEGORIES = f"""
SELECT grp, count(*) AS images, count(*) FILTER (alike) AS scored,
    corr(score_b, score_a) FILTER (alike) AS pearson,
    median((score_b - score_a) / nullif(score_a, 0)) FILTER (alike) AS median_change,
    arg_max((score_b - score_a) / nullif(score_a, 0), abs((score_b - score_a) / nullif(score_a, 0)))
        FILTER (alike) AS largest_change,
    {_CHANGES}
FROM pairs GROUP BY grp ORDER BY grp
"""
# Pearson's correlation of ranks, where scores that are the same share the mean of their ranks.
_SPEARMAN = """
SELECT grp, corr(rank_a, rank_b) FROM (
    SELECT grp,
        rank() OVER (PARTITION BY grp ORDER BY score_a) + count(*) OVER (PARTITION BY grp, score_a) / 2 AS rank_a,
        rank() OVER (PARTITION BY grp ORDER BY score_b) + count(*) OVER (PARTITION BY grp, score_b) / 2 AS rank_b
    FROM pairs WHERE alike)
GROUP BY grp
"""
_MOST = f"""
SELECT image_id, coalesce(b.uri, a.uri) AS uri, category_a, category_b, decision_a, decision_b, score_a, score_b,
    margin_a, margin_b, a.overlay_path AS overlay_a, b.overlay_path AS overlay_b
FROM (SELECT *, CASE WHEN {_SCORED} THEN abs(ln(greatest(margin_b, 1e-9) / greatest(margin_a, 1e-9))) END AS ratio
      FROM pairs WHERE changed ORDER BY ratio DESC NULLS LAST, image_id LIMIT ?)
JOIN a USING (image_id) JOIN b USING (image_id) ORDER BY ratio DESC NULLS LAST, image_id
"""


def pair(connection: duckdb.DuckDBPyConnection) -> int:
    """Join views ``a`` and ``b`` into the table ``pairs``, one row an image that is in both; returns how many."""
    connection.execute(_PAIRS)
    return int(connection.execute("SELECT count(*) FROM pairs").fetchall()[0][0])


def same_images(connection: duckdb.DuckDBPyConnection, show: int) -> SameImages:
    """All figures of ``pairs``. show: images that changed most, at most."""
    decisions: dict[str, dict[str, int]] = {}
    told = connection.execute("SELECT decision_a, decision_b, count(*) FROM pairs GROUP BY ALL ORDER BY ALL")
    for a, b, count in told.fetchall():
        decisions.setdefault(a, {})[b] = count
    compared, changed = connection.execute(
        "SELECT count(*), count(*) FILTER (changed) FROM pairs WHERE compared"
    ).fetchall()[0]
    near, far, unscored, only_a, only_b = connection.execute(f"SELECT {_CHANGES} FROM pairs").fetchall()[0]
    routes = connection.execute(
        "SELECT category_a, category_b, count(*) FROM pairs WHERE category_a <> category_b GROUP BY ALL "
        "ORDER BY 3 DESC, 1, 2"
    ).fetchall()
    return SameImages(
        decisions=decisions,
        changed=rate(changed, compared),
        changes=Changes(near, far, unscored),
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b),
        categories=_categories(connection),
        rerouted=sum(count for *_, count in routes),
        routes=routes[:ROUTES],
        most=[Image(*row) for row in connection.execute(_MOST, [show]).fetchall()],
        alone_a=_alone(connection, "a", "b"),
        alone_b=_alone(connection, "b", "a"),
    )


def _categories(connection: duckdb.DuckDBPyConnection) -> dict[str, CategoryFigures]:
    spearman = dict(connection.execute(_SPEARMAN).fetchall())
    found = {}
    cursor = connection.execute(_CATEGORIES)
    names = [column[0] for column in cursor.description or ()]
    for row in cursor.fetchall():
        one: dict[str, Any] = dict(zip(names, row, strict=True))
        category = one.pop("grp")
        one["changes"] = Changes(**{field.name: one.pop(field.name) for field in fields(Changes)})
        one |= {"pearson": _correlation(one["pearson"]), "spearman": _correlation(spearman.get(category))}
        found[category] = CategoryFigures(**one)
    return found


def _alone(connection: duckdb.DuckDBPyConnection, here: str, there: str) -> dict[str, int]:
    found = connection.execute(
        f"SELECT decision, count(*) FROM {here} ANTI JOIN {there} USING (image_id) GROUP BY 1 ORDER BY 1"
    )
    return dict(found.fetchall())


def _correlation(found: float | None) -> float | None:
    """DuckDB's correlation is no number for scores that are all the same, and may be a hair beyond 1."""
    return None if found is None or not math.isfinite(found) else max(-1.0, min(1.0, found))
