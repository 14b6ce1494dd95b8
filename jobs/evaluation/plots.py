"""The curves of an evaluation: ROC of each category, and its scores around the threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from sklearn.metrics import roc_curve

from jobs.evaluation.judge import Judged
from jobs.pages import LAYOUT

GOOD_COLOUR, BAD_COLOUR, LINE_COLOUR = "#1b7a48", "#b3261e", "#111827"
COLUMNS, BINS = 3, 40


def roc(judged: Sequence[Judged], categories: Sequence[str]) -> go.Figure:
    """One curve a category that has good and defective images; the left of it, where a line works."""
    figure = go.Figure()
    for category in categories:
        group = [one for one in judged if one.image.category == category]
        truth = [one.image.defective for one in group]
        if any(truth) and not all(truth):
            x, y, _ = roc_curve(truth, [one.score for one in group])
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=category, line={"width": 2}))
    figure.update_layout(**LAYOUT, height=430, legend={"orientation": "v"})
    figure.update_xaxes(title="good parts rejected", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title="defective parts found", tickformat=".0%", range=[-0.01, 1.02])
    return figure


def histograms(judged: Sequence[Judged], thresholds: Mapping[str, float]) -> go.Figure:
    """Scores of good and of defective images as multiples of the threshold, one panel a category."""
    names = sorted({one.image.category for one in judged if one.image.category in thresholds})
    rows = math.ceil(len(names) / COLUMNS)
    figure = make_subplots(rows=rows, cols=min(COLUMNS, len(names)), subplot_titles=names)
    for index, category in enumerate(names):
        at = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}
        margins = {
            defective: [
                one.score / thresholds[category]
                for one in judged
                if one.image.category == category and one.image.defective == defective and one.score is not None
            ]
            for defective in (False, True)
        }
        edges = np.linspace(0, max([1.2, *margins[False], *margins[True]]), BINS + 1)
        for defective, name, colour in ((False, "good", GOOD_COLOUR), (True, "defective", BAD_COLOUR)):
            counts, _ = np.histogram(margins[defective], edges)
            bar = go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=counts,
                width=np.diff(edges),
                name=name,
                marker={"color": colour, "opacity": 0.65, "line": {"width": 0}},
                showlegend=index == 0,
                legendgroup=name,
            )
            figure.add_trace(bar, **at)
        figure.add_vline(x=1, line={"color": LINE_COLOUR, "width": 1.5, "dash": "dash"}, **at)
        figure.update_xaxes(title="score / threshold", **at)
    figure.update_yaxes(title="images", col=1)
    legend = {"orientation": "h", "y": 1 + 0.16 / rows, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    figure.update_layout(**LAYOUT, height=60 + 280 * rows, barmode="overlay", bargap=0, legend=legend)
    return figure
