"""Two nights: how often parts were anomalous, in review or failed, and how scores moved."""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb

from anomaly_core.comparison import SIGNIFICANCE, Difference, difference, holm, ks_p_value

# Groups by what rows say, in the words of SQL; the empty name has the rows that do not say.
DIMENSIONS = {"all": "''", "category": "grp", "line": "coalesce(line, '')", "camera": "coalesce(camera, '')"}
# By the decision that is counted: which rows it is a share of.
KINDS = {"anomalous": "scored", "review": "scored", "failed": "all"}
GROUPS = 200


@dataclass(frozen=True)
class RateShift:
    """How often one decision was taken in a group, in A and in B. anomalous and review are shares of the scored images,
    failed one of all. p_holm: the p-value, adjusted for all rates of all groups; beyond_chance: it is below 5 %."""

    kind: str
    dimension: str
    group: str
    difference: Difference
    p_holm: float | None = None
    beyond_chance: bool = False


@dataclass(frozen=True)
class ScoreShift:
    """Scores of a category. change: of the median, relative to A. distance: of Kolmogorov and Smirnov, the largest
    between the two distributions, from 0 to 1. None where a run has no scores. p_holm: adjusted for all categories."""

    scored_a: int
    scored_b: int
    median_a: float | None
    median_b: float | None
    change: float | None
    distance: float | None
    p_holm: float | None = None
    beyond_chance: bool = False


@dataclass(frozen=True)
class TwoNights:
    """rates: of all rows first, then by group. scores: by category. left_out: by dimension, groups that are beyond the
    GROUPS largest ones and have no rates."""

    rates: list[RateShift]
    scores: dict[str, ScoreShift]
    left_out: dict[str, int]


_COUNTS = """
SELECT {group} AS name, count(*) AS rows, count(*) FILTER (status = 'scored') AS scored,
    count(*) FILTER (decision = 'anomalous') AS anomalous, count(*) FILTER (decision = 'review') AS review,
    count(*) FILTER (decision = 'failed') AS failed
FROM {side} GROUP BY 1
"""
_EACH = ", ".join(f"coalesce({side}.{n}, 0)" for n in ("rows", "scored", *KINDS) for side in ("x", "y"))
# Both empirical distributions at every score that there is; scores that are the same are one step.
_SCORES = """
WITH told AS (SELECT category, score, 1 AS a, 0 AS b FROM a WHERE score IS NOT NULL
              UNION ALL SELECT category, score, 0, 1 FROM b WHERE score IS NOT NULL),
     totals AS (SELECT category, sum(a) AS n_a, sum(b) AS n_b, median(score) FILTER (a = 1) AS median_a,
                       median(score) FILTER (b = 1) AS median_b FROM told GROUP BY 1),
     steps AS (SELECT category, score, sum(a) AS a, sum(b) AS b FROM told GROUP BY 1, 2),
     reached AS (SELECT category, sum(a) OVER w AS a, sum(b) OVER w AS b FROM steps
                 WINDOW w AS (PARTITION BY category ORDER BY score))
SELECT category, any_value(n_a)::BIGINT, any_value(n_b)::BIGINT, any_value(median_a), any_value(median_b),
       max(abs(a / nullif(n_a, 0) - b / nullif(n_b, 0)))
FROM reached JOIN totals USING (category) GROUP BY category ORDER BY category
"""


def two_nights(connection: duckdb.DuckDBPyConnection) -> TwoNights:
    """All figures of views ``a`` and ``b``."""
    rates: list[RateShift] = []
    left_out = {}
    for dimension in DIMENSIONS:
        found, more = _of_dimension(connection, dimension)
        rates += found
        if more:
            left_out[dimension] = more
    adjusted = holm([one.difference.p_value for one in rates])
    rates = [
        replace(one, p_holm=p, beyond_chance=p is not None and p < SIGNIFICANCE)
        for one, p in zip(rates, adjusted, strict=True)
    ]
    return TwoNights(rates, _scores(connection), left_out)


def _of_dimension(connection: duckdb.DuckDBPyConnection, dimension: str) -> tuple[list[RateShift], int]:
    """The rates of the largest groups by name, and how many groups there are besides."""
    x, y = (_COUNTS.format(group=DIMENSIONS[dimension], side=side) for side in ("a", "b"))
    found = connection.execute(
        f"SELECT coalesce(x.name, y.name) AS name, {_EACH}, count(*) OVER () FROM ({x}) x FULL JOIN ({y}) y "
        f"ON x.name = y.name ORDER BY coalesce(x.rows, 0) + coalesce(y.rows, 0) DESC, name LIMIT {GROUPS}"
    ).fetchall()
    rates = []
    for name, rows_a, rows_b, scored_a, scored_b, *counts, _ in sorted(found):
        for place, (kind, of) in enumerate(KINDS.items()):
            of_a, of_b = (scored_a, scored_b) if of == "scored" else (rows_a, rows_b)
            shift = difference(counts[2 * place], of_a, counts[2 * place + 1], of_b)
            rates.append(RateShift(kind, dimension, name, shift))
    return rates, found[0][-1] - len(found) if found else 0


def _scores(connection: duckdb.DuckDBPyConnection) -> dict[str, ScoreShift]:
    found, p_values = {}, []
    for category, of_a, of_b, median_a, median_b, distance in connection.execute(_SCORES).fetchall():
        change = (median_b - median_a) / median_a if distance is not None and median_a else None
        found[category] = ScoreShift(of_a, of_b, median_a, median_b, change, distance)
        p_values.append(None if distance is None else ks_p_value(distance, of_a, of_b))
    return {
        category: replace(one, p_holm=p, beyond_chance=p is not None and p < SIGNIFICANCE)
        for (category, one), p in zip(found.items(), holm(p_values), strict=True)
    }
