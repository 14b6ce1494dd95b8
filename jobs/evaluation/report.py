"""The page: tables, curves and the worst misses in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from jobs.evaluation.figures import Evaluation
from jobs.evaluation.judge import Judged
from jobs.evaluation.misses import Miss
from jobs.evaluation.plots import histograms, roc
from jobs.evaluation.tables import NOTES, tables
from jobs.pages import chart, rendered


def page(
    found: Evaluation,
    judged: Sequence[Judged],
    thresholds: Mapping[str, float],
    misses: Sequence[tuple[Miss, bytes]],
    about: Mapping[str, str],
) -> str:
    """The HTML. misses: each with its picture, the bytes of a PNG file. Whatever names say is text, never markup."""
    sources = [(miss, f"data:image/png;base64,{base64.b64encode(png).decode()}") for miss, png in misses]
    return rendered(
        "evaluation/page.html",
        about=about,
        tables=list(tables(found)),
        notes=NOTES,
        roc=chart(roc(judged, list(found.categories)), "roc"),
        histograms=chart(histograms(judged, thresholds), "histograms"),
        misses=sources,
    )
