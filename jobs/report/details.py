"""What only the page shows of a table: failures with examples, how images were routed, and the worst images."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import duckdb

EXAMPLES = 3
MOST_KINDS = 20  # of failures, and of disagreements
WORST = 60  # pictures in the gallery, at most


@dataclass(frozen=True)
class Failure:
    """Failed rows with the same stage and code. examples: uri and message of some of them."""

    stage: str
    code: str
    rows: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Disagreement:
    """Images declared to be of one category and routed to another. review: of them, in review."""

    declared: str
    routed: str
    rows: int
    review: int


@dataclass(frozen=True)
class Unknown:
    """Images of no product that the bundle knows, by what they were declared as, and line; '' where there is none."""

    declared: str
    line: str
    rows: int
    example: str


@dataclass(frozen=True)
class Routing:
    """declared: scored or in review, with a declared category; disagreeing: of those, routed elsewhere. unsure: below
    the routing confidence asked for. The lists hold the most frequent kinds."""

    declared: int
    disagreeing: int
    unsure: int
    unknown: int
    disagreements: tuple[Disagreement, ...]
    unknowns: tuple[Unknown, ...]


@dataclass(frozen=True)
class Shot:
    """A row that somebody must look at, with pictures. heatmap, overlay: as the table has them."""

    image_id: str
    uri: str
    category: str
    line: str
    camera: str
    captured_at: datetime | None
    score: float
    threshold: float
    margin: float
    decision: str
    reason: str
    heatmap: str | None
    overlay: str


@dataclass(frozen=True)
class Details:
    """pictured: rows to look at that have an overlay, of which shots are the worst."""

    failures: tuple[Failure, ...]
    more_failures: int
    routing: Routing
    shots: tuple[Shot, ...]
    pictured: int


def details(connection: duckdb.DuckDBPyConnection) -> Details:
    """Of the rows in the view ``rows``."""
    failures, more = _failures(connection)
    shots, pictured = _shots(connection)
    return Details(failures, more, _routing(connection), shots, pictured)


def _failures(connection: duckdb.DuckDBPyConnection) -> tuple[tuple[Failure, ...], int]:
    """The most frequent kinds, and the rows of the others."""
    found = connection.execute(
        "SELECT error_stage, error_code, count(*) AS rows, "
        f"list((coalesce(uri, ''), coalesce(error_message, '')) ORDER BY image_id) FILTER (place <= {EXAMPLES}) "
        "FROM (SELECT *, row_number() OVER (PARTITION BY error_stage, error_code ORDER BY image_id) AS place "
        "FROM (SELECT error_stage, error_code, uri, error_message, image_id FROM rows WHERE status = 'failed')) "
        "GROUP BY 1, 2 ORDER BY rows DESC, 1, 2"
    ).fetchall()
    kinds = [Failure(stage or "", code or "", rows, tuple(map(tuple, shown))) for stage, code, rows, shown in found]
    return tuple(kinds[:MOST_KINDS]), sum(kind.rows for kind in kinds[MOST_KINDS:])


def _routing(connection: duckdb.DuckDBPyConnection) -> Routing:
    routed = "status = 'scored' AND declared_category IS NOT NULL"
    counts = connection.execute(
        f"SELECT count(*) FILTER ({routed}), count(*) FILTER ({routed} AND NOT route_agrees), "
        "count(*) FILTER (decision_reason LIKE '%low_routing_confidence%'), "
        "count(*) FILTER (decision_reason LIKE '%unknown_category%') FROM rows"
    ).fetchone()
    assert counts is not None
    scored, disagreeing, unsure, unknown = counts
    disagreements = connection.execute(
        "SELECT declared_category, category, count(*), count(*) FILTER (decision = 'review') FROM rows "
        f"WHERE {routed} AND NOT route_agrees GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {MOST_KINDS}"
    ).fetchall()
    unknowns = connection.execute(
        "SELECT coalesce(declared_category, ''), coalesce(line, ''), count(*), "
        "coalesce(min_by(uri, image_id), '') FROM rows WHERE decision_reason LIKE '%unknown_category%' "
        f"GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {MOST_KINDS}"
    ).fetchall()
    return Routing(
        scored,
        disagreeing,
        unsure,
        unknown,
        tuple(Disagreement(declared, routed or "", *rows) for declared, routed, *rows in disagreements),
        tuple(Unknown(*row) for row in unknowns),
    )


def _shots(connection: duckdb.DuckDBPyConnection) -> tuple[tuple[Shot, ...], int]:
    """The worst of every category and line in turn, until there are WORST; and how many there are in all."""
    wanted = "overlay_path IS NOT NULL AND score IS NOT NULL AND decision IN ('anomalous', 'review')"
    (pictured,) = connection.execute(f"SELECT count(*) FROM rows WHERE {wanted}").fetchone() or (0,)
    # The pictures are found by few narrow columns first: of a long table, the wide ones are then read for few rows.
    found = connection.execute(
        "WITH placed AS (SELECT image_id, margin, row_number() OVER ("
        f"PARTITION BY category, line ORDER BY margin DESC, image_id) AS place FROM rows WHERE {wanted} "
        f"QUALIFY place <= {WORST}), "
        f"chosen AS (SELECT image_id FROM placed ORDER BY place, margin DESC, image_id LIMIT {WORST}) "
        "SELECT image_id, coalesce(uri, ''), coalesce(category, ''), coalesce(line, ''), coalesce(camera, ''), "
        "captured_at, score, threshold, margin, decision, coalesce(decision_reason, ''), heatmap_path, overlay_path "
        f"FROM rows SEMI JOIN chosen USING (image_id) WHERE {wanted} ORDER BY margin DESC, image_id"
    ).fetchall()
    return tuple(Shot(*row) for row in found), pictured
