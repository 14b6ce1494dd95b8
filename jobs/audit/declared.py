"""Categories that a manifest declares and the bundle does not have: told before a night is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from anomaly_core.bundle import Bundle
from manifests.frozen import FrozenManifest

NAMED = 5


def undeclared(bundle: Bundle, frozen: FrozenManifest, parts: Path) -> Sequence[str]:
    """A warning, or none: rows of the frozen manifest whose declared category the bundle does not have.

    They go to review without a score, and a word that is spelt otherwise does that to a whole line. parts: folder of
    the frozen manifest. The reference's rule does not look at what is declared.
    """
    if bundle.reference:
        return ()
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT declared_category, count(*), sum(count(*)) OVER (), count(*) OVER () FROM read_parquet(?) "
            "WHERE problem_code IS NULL AND declared_category IS NOT NULL AND NOT list_contains(?, declared_category) "
            "GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT ?",
            [[str(parts / part) for part in frozen.parts], list(bundle.categories), NAMED],
        ).fetchall()
    if not found:
        return ()
    named = ", ".join(f"{category!r} {rows:,}" for category, rows, _, _ in found)
    _, _, every, words = found[0]
    more = f", and {words - NAMED} more" if words > NAMED else ""
    return (
        f"{every:,} of {frozen.rows:,} rows declare a category that the bundle does not have "
        f"({named}{more}): they go to review without a score; it has {', '.join(bundle.categories)}",
    )
