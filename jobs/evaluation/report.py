"""The page: tables, curves and the worst misses in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jobs.page.render as pages
from jobs.evaluation.figures import Evaluation
from jobs.evaluation.judge import Judged
from jobs.evaluation.misses import Miss
from jobs.evaluation.plots import histograms, roc
from jobs.evaluation.tables import NOTES, tables


def page(
    found: Evaluation,
    judged: Sequence[Judged],
    thresholds: Mapping[str, float],
    misses: Sequence[tuple[Miss, bytes]],
    about: Mapping[str, str],
) -> str:
    """The HTML. misses: each with its picture, the bytes of a PNG file. Whatever names say is text, never markup."""
    return pages.page(
        "jobs.evaluation",
        {
            "about": about,
            "tables": list(tables(found)),
            "notes": NOTES,
            "roc": pages.figure(roc(judged, list(found.categories))),
            "histograms": pages.figure(histograms(judged, thresholds)),
            "misses": [(miss, pages.picture(png)) for miss, png in misses],
        },
    )
