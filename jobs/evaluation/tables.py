"""The figures as Markdown for people and as tables for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from anomaly_core.metrics import Decided, Rate
from anomaly_core.pixel_metrics import POINTING_TOLERANCE
from jobs.evaluation.figures import MEANS, Evaluation, Pointing, Routing
from jobs.evaluation.judge import Judged

HEADINGS = {
    "auroc": "image AUROC",
    "average_precision": "average precision",
    "f1": "F1 at T",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
}
IMAGES = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("defect", pa.string(), nullable=False),
        pa.field("defective", pa.bool_(), nullable=False),
        pa.field("routed", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("distance", pa.float64()),
        pa.field("logit_margin", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("routed_score", pa.float64(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("decision_reason", pa.string()),
    ]
)
METRICS = pa.schema(
    [
        pa.field("category", pa.string()),
        pa.field("defect", pa.string()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("count", pa.int64()),
        pa.field("of", pa.int64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)


def images_table(judged: Sequence[Judged]) -> pa.Table:
    """One row an image. threshold: of the routed category, which the decision was made with."""
    rows = [
        {
            "path": one.image.path,
            "category": one.image.category,
            "defect": one.image.defect,
            "defective": one.image.defective,
            "decision_reason": one.reason,
            **{
                name: getattr(one, name)
                for name in (
                    "routed",
                    "confidence",
                    "distance",
                    "logit_margin",
                    "score",
                    "routed_score",
                    "threshold",
                    "decision",
                )
            },
        }
        for one in judged
    ]
    return pa.Table.from_pylist(rows, IMAGES)


def metrics_table(found: Evaluation) -> pa.Table:
    """One row a figure. category null: of all; defect null: of all kinds. count, of, low, high: of rates only."""
    rows: list[dict[str, Any]] = []
    for category, figures in found.categories.items():
        values = {name: getattr(figures, name) for name in MEANS} | {"threshold": figures.threshold}
        rows += [_value(category, None, name, value) for name, value in values.items()]
        rows += _rates(category, figures.at_threshold, figures.end_to_end, figures.routing)
        rows += _pointings(category, figures.pointing)
        for kind, defect in figures.defects.items():
            rows.append(_rate(category, kind, "escapes", defect.escapes))
            rows.append(_value(category, kind, "mean_margin", defect.mean_margin))
    rows += [_value(None, None, name, value) for name, value in found.summary.mean.items()]
    rows += _rates(None, found.summary.at_threshold, found.summary.end_to_end, found.summary.routing)
    rows += _pointings(None, found.summary.pointing)
    for name, unknown in found.unknown.items():
        rows.append(_rate(name, None, "called_unknown", unknown.called_unknown))
        rows.append(_rate(name, None, "passed", unknown.passed))
    return pa.Table.from_pylist(rows, METRICS)


def _rates(category: str | None, alone: Decided, whole: Decided, routing: Routing) -> Iterator[dict[str, Any]]:
    for prefix, said in (("", alone), ("end_to_end_", whole)):
        for name in ("false_rejects", "escapes", "good_in_review", "defective_in_review"):
            if prefix or "review" not in name:  # without the router there is no doubt, so no review
                yield _rate(category, None, prefix + name, getattr(said, name))
    yield _rate(category, None, "routed_right_good", routing.good)
    yield _rate(category, None, "routed_right_defective", routing.defective)
    yield _rate(category, None, "called_unknown_good", routing.good_unknown)
    yield _rate(category, None, "called_unknown_defective", routing.defective_unknown)
    yield _value(category, None, "smallest_logit_margin", routing.smallest_margin)


def _pointings(category: str | None, one: Pointing) -> Iterator[dict[str, Any]]:
    yield _rate(category, None, "pointing_game", one.hits)
    yield _rate(category, None, f"pointing_game_{POINTING_TOLERANCE}px", one.near)


def _value(category: str | None, defect: str | None, metric: str, value: float | None) -> dict[str, Any]:
    return {"category": category, "defect": defect, "metric": metric, "value": value}


def _rate(category: str | None, defect: str | None, metric: str, one: Rate) -> dict[str, Any]:
    counts = {"count": one.count, "of": one.of, "low": one.low, "high": one.high}
    return _value(category, defect, metric, one.rate) | counts


Table = tuple[str, list[str], list[list[str]]]


def tables(found: Evaluation) -> Iterator[Table]:
    """Title, headings and cells of each table that people read."""
    yield "Scores", ["category", "images", *HEADINGS.values(), "T"], _scores(found)
    if found.summary.pointing.hits.of:
        headings = ["category", "images", "peak in the defect", f"at most {POINTING_TOLERANCE} pixels from it"]
        yield "Pointing game", headings, _pointing(found)
    headings = ["category", "false rejects", "escapes"]
    yield "Decisions, by the right autoencoder", headings, _decisions(found)
    headings = [*headings, "good in review", "defective in review"]
    yield "Decisions of an audit, end to end", headings, _end_to_end(found)
    headings = ["category", "good parts", "defective parts", "good called unknown", "defective called unknown"]
    headings += ["smallest confidence", "smallest logit margin", "at"]
    yield "Routed to their category", headings, _routings(found)
    kinds = [
        [category, kind, str(one.images), str(one.escapes), f"{one.mean_margin:.3f}"]
        for category, figures in found.categories.items()
        for kind, one in figures.defects.items()
    ]
    yield "Kinds of defect", ["category", "defect", "images", "escapes", "mean score / T"], kinds
    if found.unknown:
        cells = [
            [
                name,
                str(one.images),
                str(one.called_unknown),
                str(one.passed),
                ", ".join(f"{n} {to}" for to, n in one.routed_to.items()),
            ]
            for name, one in found.unknown.items()
        ]
        yield (
            "Categories that the bundle does not know",
            ["category", "images", "called unknown", "passed", "routed to"],
            cells,
        )


def markdown(found: Evaluation, about: Mapping[str, str]) -> str:
    """The tables and what they are of, as Markdown."""
    lines = ["# Evaluation", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    for title, headings, cells in tables(found):
        rule = ["---", *["---:"] * (len(headings) - 1)]
        lines += [f"## {title}", "", *(_line(row) for row in (headings, rule, *cells)), ""]
    return "\n".join([*lines, NOTES, ""])


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"


NOTES = (
    "Rates are with their 95 % interval (Clopper and Pearson). A mean is over the categories that have the figure, "
    "each counted alike. Figures of pixels are at 224 x 224, AUPRO up to a false-positive rate of 0.3. The pointing "
    "game asks of each defective image with a mask whether the highest error is in it (Zhang et al., 2016). End to end "
    "is what an audit gives: a misrouted image is scored by another category's autoencoder, and what is in doubt goes "
    "to review."
)


def _scores(found: Evaluation) -> list[list[str]]:
    cells = [
        [category, str(one.images), *(_number(getattr(one, name)) for name in MEANS), f"{one.threshold:.4g}"]
        for category, one in found.categories.items()
    ]
    total = sum(one.images for one in found.categories.values())
    return [*cells, ["mean", str(total), *(_number(found.summary.mean[name]) for name in MEANS), ""]]


def _decisions(found: Evaluation) -> list[list[str]]:
    each = [(name, one.at_threshold) for name, one in found.categories.items()]
    return [
        [name, str(one.false_rejects), str(one.escapes)] for name, one in [*each, ("all", found.summary.at_threshold)]
    ]


def _pointing(found: Evaluation) -> list[list[str]]:
    each = [*((name, one.pointing) for name, one in found.categories.items()), ("all", found.summary.pointing)]
    return [[name, str(one.hits.of), str(one.hits), str(one.near)] for name, one in each]


def _end_to_end(found: Evaluation) -> list[list[str]]:
    each = [(name, one.end_to_end) for name, one in found.categories.items()]
    return [
        [name, *map(str, (one.false_rejects, one.escapes, one.good_in_review, one.defective_in_review))]
        for name, one in [*each, ("all", found.summary.end_to_end)]
    ]


def _routings(found: Evaluation) -> list[list[str]]:
    each = [*((name, one.routing) for name, one in found.categories.items()), ("all", found.summary.routing)]
    return [
        [
            name,
            _of(one.good),
            _of(one.defective),
            _of(one.good_unknown),
            _of(one.defective_unknown),
            f"{one.smallest_confidence:.4f}",
            "-" if one.smallest_margin is None else f"{one.smallest_margin:.2f}",
            one.nearest or "-",
        ]
        for name, one in each
    ]


def _of(share: Rate) -> str:
    return f"{share.count} of {share.of}" if share.of else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
