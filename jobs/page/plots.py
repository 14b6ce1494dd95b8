"""Figures that pages share: scores around the threshold, one panel a category."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

LINE_COLOUR = "#111827"
# Colours that people with any vision tell apart (Okabe and Ito 2008).
BLACK, BLUE, ORANGE, GREEN, VERMILION, SKY = "#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 55, "r": 20, "t": 50, "b": 50},
    "font": {"size": 13},
}
COLUMNS = 3


@dataclass(frozen=True)
class Bars:
    """One histogram of a panel. heights: (N,) for the N + 1 edges of its panel."""

    name: str
    colour: str
    heights: npt.NDArray[np.floating] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Panel:
    """Histograms that are laid over each other. edges: (N + 1,), multiples of the threshold."""

    edges: npt.NDArray[np.floating]
    bars: Sequence[Bars]


def margin_histograms(panels: Mapping[str, Panel], unit: str, tick_format: str | None = None) -> go.Figure:
    """Scores as multiples of the threshold, one panel a category, with a line at the threshold.

    panels: one at least. unit: of the heights.
    """
    rows = math.ceil(len(panels) / COLUMNS)
    titles = [plain(name) for name in panels]
    figure = make_subplots(rows=rows, cols=min(COLUMNS, len(panels)), subplot_titles=titles)
    for index, panel in enumerate(panels.values()):
        at = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}
        for bars in panel.bars:
            bar = go.Bar(
                x=(panel.edges[:-1] + panel.edges[1:]) / 2,
                y=bars.heights,
                width=np.diff(panel.edges),
                name=bars.name,
                marker={"color": bars.colour, "opacity": 0.65, "line": {"width": 0}},
                showlegend=index == 0,
                legendgroup=bars.name,
            )
            figure.add_trace(bar, **at)
        figure.add_vline(x=1, line={"color": LINE_COLOUR, "width": 1.5, "dash": "dash"}, **at)
        figure.update_xaxes(title="score / threshold", **at)
    figure.update_yaxes(title=unit, col=1)
    figure.update_yaxes(tickformat=tick_format)
    legend = {"orientation": "h", "y": 1 + 0.16 / rows, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    figure.update_layout(**LAYOUT, height=60 + 280 * rows, barmode="overlay", bargap=0, legend=legend)
    return figure


def plain(name: str) -> str:
    """A name as plotly has to be given it: it takes some tags in titles and legends for markup."""
    return html.escape(name, quote=False)
