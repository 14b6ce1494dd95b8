"""The curves of an evaluation: ROC of each category, and its scores around the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from sklearn.metrics import roc_curve

from jobs.evaluation.judge import Judged
from jobs.page.plots import LAYOUT, Bars, Panel, margin_histograms, plain

GOOD_COLOUR, BAD_COLOUR = "#1b7a48", "#b3261e"
BINS = 40


def roc(judged: Sequence[Judged], categories: Sequence[str]) -> go.Figure:
    """One curve a category that has good and defective images; the left of it, where a line works."""
    figure = go.Figure()
    for category in categories:
        group = [one for one in judged if one.image.category == category]
        truth = [one.image.defective for one in group]
        if any(truth) and not all(truth):
            x, y, _ = roc_curve(truth, [one.score for one in group])
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=plain(category), line={"width": 2}))
    figure.update_layout(**LAYOUT, height=430, legend={"orientation": "v"})
    figure.update_xaxes(title="good parts rejected", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title="defective parts found", tickformat=".0%", range=[-0.01, 1.02])
    return figure


def histograms(judged: Sequence[Judged], thresholds: Mapping[str, float]) -> go.Figure:
    """Scores of good and of defective images as multiples of the threshold, one panel a category."""
    panels = {}
    for category in sorted({one.image.category for one in judged if one.image.category in thresholds}):
        margins = {
            defective: [
                one.score / thresholds[category]
                for one in judged
                if one.image.category == category and one.image.defective == defective and one.score is not None
            ]
            for defective in (False, True)
        }
        edges = np.linspace(0, max([1.2, *margins[False], *margins[True]]), BINS + 1)
        kinds = ((False, "good", GOOD_COLOUR), (True, "defective", BAD_COLOUR))
        bars = [Bars(name, colour, np.histogram(margins[kind], edges)[0]) for kind, name, colour in kinds]
        panels[category] = Panel(edges, bars)
    return margin_histograms(panels, "images")
