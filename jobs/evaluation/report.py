"""The page: tables, curves and the worst misses in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

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
    environment = Environment(loader=PackageLoader("jobs.evaluation", "."), autoescape=True, undefined=StrictUndefined)
    sources = [(miss, f"data:image/png;base64,{base64.b64encode(png).decode()}") for miss, png in misses]
    return environment.get_template("page.html").render(
        about=about,
        tables=list(tables(found)),
        notes=NOTES,
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        roc=_part(roc(judged, list(found.categories))),
        histograms=_part(histograms(judged, thresholds)),
        misses=sources,
    )


def _part(figure: Figure) -> Markup:
    html = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    return Markup(html)  # noqa: S704
