"""The figures of a comparison: margins of the same images against each other, or of two nights over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from jobs.compare.histograms import BINS, Histogram, Point
from jobs.page.plots import LAYOUT, LINE_COLOUR, Bars, Panel, margin_histograms

A_COLOUR, B_COLOUR, CHANGED_COLOUR, SAME_COLOUR = "#2563eb", "#d97706", "#b3261e", "#6b7280"
SMALLEST = 1e-3


def scatter(points: Sequence[Point]) -> go.Figure:
    """Score / threshold in A and in B, one point an image; lines at the thresholds."""
    figure = go.Figure()
    for changed, name, colour in ((False, "same decision", SAME_COLOUR), (True, "decision changed", CHANGED_COLOUR)):
        chosen = np.array([(a, b) for a, b, is_changed in points if is_changed == changed]).reshape(-1, 2)
        x, y = np.maximum(chosen, SMALLEST).T  # the axes are logarithmic
        marker = {"color": colour, "size": 5, "opacity": 0.6}
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", name=name, marker=marker))
    line = {"color": LINE_COLOUR, "width": 1.5, "dash": "dash"}
    figure.add_hline(y=1, line=line)
    figure.add_vline(x=1, line=line)
    figure.update_layout(**LAYOUT, height=560, width=640, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title="score / threshold in A", type="log")
    figure.update_yaxes(title="score / threshold in B", type="log")
    return figure


def overlaid(histograms: Mapping[str, Histogram]) -> go.Figure:
    """Shares of a category's images by score / threshold, A and B over each other; one panel a category."""
    panels = {
        name or "none": Panel(
            np.linspace(0, one.upper, BINS + 1), [_bars("A", A_COLOUR, one.a), _bars("B", B_COLOUR, one.b)]
        )
        for name, one in histograms.items()
    }
    return margin_histograms(panels, "share of images", ".0%")


def _bars(name: str, colour: str, counts: Sequence[int]) -> Bars:
    return Bars(name, colour, np.array(counts) / max(1, sum(counts)))
