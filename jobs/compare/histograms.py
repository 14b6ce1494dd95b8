"""What the figures of a comparison are drawn from: counted and sampled in the database, however long the runs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import duckdb

BINS = 40
POINTS = 2000  # of either kind
_TAIL = 0.999

_BINS = f"""
WITH told AS (SELECT grp, margin, 'a' AS side FROM a WHERE margin IS NOT NULL
              UNION ALL SELECT grp, margin, 'b' FROM b WHERE margin IS NOT NULL),
     upper AS (SELECT grp, greatest(1.2, quantile_cont(margin, {_TAIL})) AS upper FROM told GROUP BY 1)
SELECT grp, any_value(upper), side, least(floor(margin / upper * {BINS}), {BINS - 1})::INTEGER AS bin, count(*)
FROM told JOIN upper USING (grp) GROUP BY grp, side, bin ORDER BY grp, side, bin
"""
# An image_id is a digest, so that the first ones are a random sample, and the same one every time.
_POINTS = f"""
SELECT margin_a, margin_b, changed FROM pairs WHERE margin_a IS NOT NULL AND margin_b IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY changed ORDER BY image_id) <= {POINTS} ORDER BY image_id
"""


class Point(NamedTuple):
    """Scores of one image in both runs, as multiples of the threshold."""

    margin_a: float
    margin_b: float
    changed: bool


@dataclass(frozen=True)
class Histogram:
    """Images of a category by score as a multiple of the threshold, in BINS bins from 0 to upper; what is above is in
    the last one."""

    upper: float
    a: tuple[int, ...]
    b: tuple[int, ...]


def histograms(connection: duckdb.DuckDBPyConnection) -> dict[str, Histogram]:
    """By category, of views ``a`` and ``b``."""
    uppers: dict[str, float] = {}
    counts: dict[tuple[str, str], list[int]] = {}
    for category, upper, side, place, count in connection.execute(_BINS).fetchall():
        uppers[category] = upper
        counts.setdefault((category, side), [0] * BINS)[place] = count
    none = [0] * BINS
    return {
        category: Histogram(upper, *(tuple(counts.get((category, side), none)) for side in ("a", "b")))
        for category, upper in uppers.items()
    }


def points(connection: duckdb.DuckDBPyConnection) -> list[Point]:
    """Of the table ``pairs``: POINTS images whose decision changed and as many whose decision did not, at most."""
    return [Point(*row) for row in connection.execute(_POINTS).fetchall()]
