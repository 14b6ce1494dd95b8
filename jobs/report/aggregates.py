"""What a night's table comes to: counts by category, line and camera, and scores on the grid.

That is all that later nights need of it, so it is kept in the run's ``report.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import duckdb
import numpy as np
from pydantic import BaseModel, ConfigDict

from jobs.audit.record import RunRecord
from jobs.audit.results import DUPLICATE_SQL
from jobs.database import table_name
from jobs.report.grid import BIN_SQL, BINS, Count, Histogram

# Names come from manifests, which may have any number of them: the largest groups are kept, and how many are not.
MOST_GROUPS = 200
MOST_LINES = 400
# As in run.json: a row that failed before it was routed belongs to the category that the manifest says.
CATEGORY_SQL = (
    "CASE status WHEN 'failed' THEN coalesce(declared_category, category, '') "
    "ELSE coalesce(category, declared_category, '') END"
)

Kind = Literal["category", "line", "camera"]
# What a group of each kind is named by. Lines have cameras of the same name, and those are others.
NAMED_BY: Mapping[Kind, tuple[str, ...]] = {"category": ("category",), "line": ("line",), "camera": ("line", "camera")}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(_Model):
    """Rows by decision. Duplicates failed too, but are counted apart: no image of theirs was lost."""

    normal: Count = 0
    anomalous: Count = 0
    review: Count = 0
    failed: Count = 0
    duplicates: Count = 0

    @property
    def decided(self) -> int:
        """Rows of images that were looked at."""
        return self.normal + self.anomalous + self.review

    @property
    def images(self) -> int:
        """Rows without duplicates."""
        return self.decided + self.failed


class Group(_Model):
    """Rows that have these names in common: of a category, a line, or line and camera; '' where there is none."""

    names: tuple[str, ...]
    counts: Counts


class LineScores(_Model):
    """Scores of a category on a line, '' for rows without one. above: of them, at or above the threshold."""

    line: str
    histogram: Histogram
    above: Count


class CategoryScores(_Model):
    """Scores of a category: all of them, and by line. threshold: the one that they were decided with; above: of the
    scores, at or above it."""

    category: str
    threshold: float
    histogram: Histogram
    above: Count
    lines: tuple[LineScores, ...]


class Scoring(_Model):
    """What scores depend on: those of two nights can be compared where it is the same. With ``decision`` and the
    thresholds it is what decisions depend on."""

    bundle: str
    precision: str


class Aggregates(_Model):
    """A version of a run's results in numbers. table: SHA-256 of the file that they are of; None if run.json, an older
    one, does not say. not_kept: groups that there are more of than are kept, by kind."""

    schema_version: Literal[1] = 1
    run_id: str
    results_version: int
    table: str | None
    scoring: Scoring
    decision: dict[str, Any]
    total: Counts
    groups: dict[Kind, tuple[Group, ...]]
    not_kept: dict[str, int]
    scores: tuple[CategoryScores, ...]

    @property
    def run_date(self) -> str:
        """The night, YYYY-MM-DD."""
        return self.run_id.partition("/")[0]

    @property
    def thresholds(self) -> dict[str, float]:
        """Of the categories that have scores."""
        return {one.category: one.threshold for one in self.scores}

    def are_of(self, record: RunRecord) -> bool:
        """Whether they are of the results that a run's record tells of."""
        table = record.published.table.sha256 if record.published else None
        return (self.run_id, self.results_version, self.table) == (record.run_id, record.version, table)


def view(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Make the view ``rows`` of a published table, by its URI. Raises duckdb.Error if it is not there or damaged."""
    connection.read_parquet(table_name(table), hive_partitioning=False).create_view("rows", replace=True)


def aggregate(connection: duckdb.DuckDBPyConnection, record: RunRecord) -> Aggregates:
    """The numbers of the rows in the view ``rows``, which are those of ``record``."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE cells AS SELECT {CATEGORY_SQL} AS category, coalesce(line, '') AS line, "
        f"coalesce(camera, '') AS camera, CASE WHEN {DUPLICATE_SQL} THEN 'duplicates' ELSE decision END AS outcome, "
        "count(*) AS rows FROM rows GROUP BY ALL"
    )
    groups, not_kept = dict[Kind, tuple[Group, ...]](), dict[str, int]()
    for kind, names in NAMED_BY.items():
        groups[kind], more = _groups(connection, names)
        if more:
            not_kept[kind] = more
    scores, more = _scores(connection)
    if more:
        not_kept["scores of a category on a line"] = more
    settings = record.parts["settings"]
    return Aggregates(
        run_id=record.run_id,
        results_version=record.version,
        table=record.published.table.sha256 if record.published else None,
        scoring=Scoring(bundle=record.parts["bundle"], precision=record.parts["precision"]),
        decision={name: settings.get(name) for name in ("min_confidence", "trust_declared")},
        total=_total(connection),
        groups=groups,
        not_kept=not_kept,
        scores=tuple(scores),
    )


def _total(connection: duckdb.DuckDBPyConnection) -> Counts:
    found = connection.execute("SELECT outcome, sum(rows)::BIGINT FROM cells GROUP BY 1").fetchall()
    return Counts.model_validate(dict(found))


def _groups(connection: duckdb.DuckDBPyConnection, names: tuple[str, ...]) -> tuple[tuple[Group, ...], int]:
    """The groups with most rows, by name, and how many more there are."""
    by = ", ".join(names)
    (count,) = connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT {by} FROM cells)").fetchone() or (0,)
    found = connection.execute(
        f"WITH kept AS (SELECT {by} FROM cells GROUP BY ALL ORDER BY sum(rows) DESC, {by} LIMIT {MOST_GROUPS}) "
        f"SELECT {by}, outcome, sum(rows)::BIGINT FROM cells SEMI JOIN kept USING ({by}) GROUP BY ALL"
    ).fetchall()
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for *named, outcome, rows in found:
        counts.setdefault(tuple(named), {})[outcome] = rows
    kept = tuple(Group(names=key, counts=Counts.model_validate(counts[key])) for key in sorted(counts))
    return kept, count - len(kept)


def _scores(connection: duckdb.DuckDBPyConnection) -> tuple[list[CategoryScores], int]:
    """By category, and how many pairs of category and line are not kept by themselves."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE binned AS SELECT category, coalesce(line, '') AS line, {BIN_SQL} AS bin, "
        "count(*) AS rows, count(*) FILTER (score >= threshold) AS above FROM rows "
        "WHERE score IS NOT NULL AND isfinite(score) AND category IS NOT NULL GROUP BY 1, 2, 3"
    )
    (pairs,) = connection.execute("SELECT count(*) FROM (SELECT DISTINCT category, line FROM binned)").fetchone() or (
        0,
    )
    thresholds = dict(
        connection.execute("SELECT category, min(threshold) FROM rows WHERE score IS NOT NULL GROUP BY 1").fetchall()
    )
    lines: dict[str, list[LineScores]] = {}
    kept = 0
    for (category, line), histogram, above in _histograms(connection, "category, line", MOST_LINES):
        lines.setdefault(category, []).append(LineScores(line=line, histogram=histogram, above=above))
        kept += 1
    found = [
        CategoryScores(
            category=category,
            threshold=thresholds[category],
            histogram=histogram,
            above=above,
            lines=tuple(lines.get(category, [])),
        )
        for (category,), histogram, above in _histograms(connection, "category", MOST_GROUPS)
    ]
    return found, pairs - kept


def _histograms(
    connection: duckdb.DuckDBPyConnection, by: str, most: int
) -> Iterator[tuple[tuple[str, ...], Histogram, int]]:
    """Names and histogram of the groups with most scores, by name, and how many are at or above the threshold."""
    found = connection.execute(
        f"WITH kept AS (SELECT {by} FROM binned GROUP BY ALL ORDER BY sum(rows) DESC, {by} LIMIT {most}) "
        f"SELECT {by}, list(bin ORDER BY bin), list(rows ORDER BY bin), sum(above)::BIGINT "
        f"FROM (SELECT {by}, bin, sum(rows)::BIGINT AS rows, sum(above) AS above FROM binned GROUP BY ALL) "
        f"SEMI JOIN kept USING ({by}) GROUP BY {by} ORDER BY {by}"
    ).fetchall()
    for *names, bins, rows, above in found:
        counts = np.zeros(BINS, np.int64)
        counts[bins] = rows
        yield tuple(names), Histogram.of(counts), above
