"""The charts of a report. What a colour says is said by form or in words too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from jobs.page.plots import BLACK, BLUE, LAYOUT, ORANGE, SKY, VERMILION, plain
from jobs.report.aggregates import Aggregates
from jobs.report.control import Baseline
from jobs.report.grid import BINS, EDGES, PER_DECADE, Counts, counted
from jobs.report.names import group
from jobs.report.rates import MEASURES, Key, Rate, Series
from jobs.report.shifts import Calibration

COLUMNS = 3
MOST_PANELS = 24  # of categories
MOST_GROUPS = 40  # of a kind, in a chart of rates
_BARS = 5  # of a distribution, between its quartiles
_GREY = "#6b7280"


def through_the_nights(panels: Sequence[tuple[Key, Series]]) -> go.Figure:
    """Control charts: each rate night by night, with the limits that each night's rows give."""
    titles = [f"{measure}, {plain(group(names))}" for (measure, _, names), _ in panels]
    rows = math.ceil(len(panels) / COLUMNS)
    gap = min(0.14, 0.5 / max(1, rows))
    figure = make_subplots(rows=rows, cols=COLUMNS, subplot_titles=titles, vertical_spacing=gap)
    named = set[bool]()
    for index, (_, one) in enumerate(panels):
        at = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}
        rates = np.array(one.counts) / np.maximum(one.rows, 1)
        baseline = Baseline(one.counts[:-1], one.rows[:-1])
        allowed = [baseline.limits(max(rows, 1)) for rows in one.rows]
        for limit in ("high", "low"):
            edge = go.Scatter(
                x=one.dates,
                y=[getattr(each, limit) for each in allowed],
                mode="lines",
                line={"color": _GREY, "width": 1.2, "dash": "dash", "shape": "hvh"},
                name="limits",
                legendgroup="limits",
                showlegend=index == 0 and limit == "high",
                hovertemplate=f"{limit} limit %{{y:.3%}}<extra></extra>",
            )
            figure.add_trace(edge, **at)
        figure.add_hline(y=baseline.centre, line={"color": _GREY, "width": 1, "dash": "dot"}, **at)
        line = go.Scatter(
            x=one.dates,
            y=rates,
            mode="lines+markers",
            line={"color": BLUE, "width": 1.5},
            marker={"size": 5},
            name="rate",
            legendgroup="rate",
            showlegend=index == 0,
            hovertemplate="%{x|%Y-%m-%d}: %{y:.3%}<extra></extra>",
        )
        figure.add_trace(line, **at)
        beyond = bool(rates[-1] > allowed[-1].high or rates[-1] < allowed[-1].low)
        last = go.Scatter(
            x=[one.dates[-1]],
            y=[rates[-1]],
            mode="markers",
            marker=_marker(beyond, 12),
            cliponaxis=False,
            name="this night, outside" if beyond else "this night",
            legendgroup=str(beyond),
            showlegend=beyond not in named,
            hovertemplate="%{x|%Y-%m-%d}: %{y:.3%}<extra></extra>",
        )
        figure.add_trace(last, **at)
        named.add(beyond)
    figure.update_layout(**LAYOUT, height=70 + 220 * rows, legend=_legend(rows))
    figure.update_xaxes(type="date", tickformat="%d %b", nticks=5, tickangle=0, tickfont={"size": 11})
    figure.update_yaxes(tickformat=".2~%", rangemode="tozero")
    return figure


def against_limits(rates: Sequence[Rate]) -> go.Figure:
    """The rates of the groups of one kind, one column a measure: what is usual, as an interval, and this night."""
    outside = {one.names for one in rates if one.outside}
    largest = sorted(
        {one.names: one.rows for one in rates}.items(), key=lambda pair: (pair[0] not in outside, -pair[1])
    )
    kept = sorted((names for names, _ in largest[:MOST_GROUPS]), reverse=True)
    figure = make_subplots(
        rows=1, cols=len(MEASURES), subplot_titles=list(MEASURES), shared_yaxes=True, horizontal_spacing=0.04
    )
    for column, measure in enumerate(MEASURES, 1):
        of = {one.names: one for one in rates if one.measure == measure}
        shown = [(at, of[names]) for at, names in enumerate(kept) if names in of]
        for trace in _intervals(shown):
            trace.update(showlegend=column == 1, legendgroup=trace.name)
            figure.add_trace(trace, row=1, col=column)
    layout = LAYOUT | {"margin": {"l": 10, "r": 20, "t": 60, "b": 40}}
    figure.update_layout(**layout, height=130 + 26 * len(kept), legend=_legend(1, 1 + 40 / (30 + 26 * len(kept))))
    figure.update_xaxes(tickformat=".2~%", rangemode="tozero", nticks=6)
    # By place, not by name: of long names only the ends are shown, and those of two may be the same.
    figure.update_yaxes(tickvals=list(range(len(kept))), ticktext=[plain(group(names)) for names in kept])
    gap = {"ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0, 0, 0, 0)"}
    figure.update_yaxes(automargin=True, range=[-0.6, len(kept) - 0.4], zeroline=False, **gap)
    return figure


def _intervals(shown: Sequence[tuple[int, Rate]]) -> Iterator[go.Scatter]:
    """The limits of each rate, at its place, what it was in earlier nights, and what it is."""
    x, y = list[float | None](), list[int | None]()
    for at, one in shown:
        if one.limits:
            x += [one.limits.low, one.limits.high, None]
            y += [at, at, None]
    band = {"color": SKY, "width": 9}
    yield go.Scatter(x=x, y=y, mode="lines", line=band, opacity=0.7, name="limits", hoverinfo="skip")
    usual = [(at, one, one.limits.centre) for at, one in shown if one.limits]
    yield go.Scatter(
        x=[centre for _, _, centre in usual],
        y=[at for at, _, _ in usual],
        text=[plain(group(one.names)) for _, one, _ in usual],
        mode="markers",
        marker={"symbol": "line-ns", "size": 11, "line": {"color": BLACK, "width": 1.5}},
        name="earlier nights",
        hovertemplate="%{text}: %{x:.3%} in earlier nights<extra></extra>",
    )
    for beyond in (False, True):
        here = [(at, one) for at, one in shown if (one.outside is not None) == beyond and one.rate is not None]
        yield go.Scatter(
            x=[one.rate for _, one in here],
            y=[at for at, _ in here],
            text=[plain(group(one.names)) for _, one in here],
            mode="markers",
            marker=_marker(beyond, 11),
            cliponaxis=False,
            name="this night, outside" if beyond else "this night",
            customdata=[[one.count, one.rows] for _, one in here],
            hovertemplate="%{text}: %{x:.3%}, %{customdata[0]:,} of %{customdata[1]:,}<extra></extra>",
        )


def distributions(
    night: Aggregates, earlier: Sequence[Aggregates], calibration: Calibration | None
) -> tuple[go.Figure, int]:
    """Scores by category as multiples of the threshold; and how many categories are left out, those with fewest."""
    scores = sorted(night.scores, key=lambda one: -sum(one.histogram.counts))[:MOST_PANELS]
    scores.sort(key=lambda one: one.category)
    rows = max(1, math.ceil(len(scores) / COLUMNS))
    columns = max(1, min(COLUMNS, len(scores)))
    titles = [plain(one.category) for one in scores]
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=titles, vertical_spacing=min(0.14, 0.5 / rows))
    alike = [one for one in earlier if one.scoring == night.scoring]
    named = set[str]()
    for index, one in enumerate(scores):
        at = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}
        before = [other.histogram.dense() for each in alike for other in each.scores if other.category == one.category]
        tonight = one.histogram.dense()
        step = _step(tonight)
        x = EDGES[:-1:step] / one.threshold * 10 ** (step / 2 / PER_DECADE)
        samples = _samples(tonight, before, (calibration or {}).get(one.category))
        drawn = [(name, _shares(counts, step), style) for name, counts, style in samples]
        (there,) = np.nonzero(np.sum([share for _, share, _ in drawn], axis=0))
        span = slice(max(0, there[0] - 2), there[-1] + 3)
        for name, share, style in drawn:
            figure.add_trace(
                go.Scatter(
                    x=x[span],
                    y=share[span],
                    mode="lines",
                    name=name,
                    legendgroup=name,
                    showlegend=name not in named,
                    hovertemplate=f"{name}: %{{y:.2%}} around %{{x:.3g}}<extra></extra>",
                    **style,
                ),
                **at,
            )
            named.add(name)
        figure.add_vline(x=1, line={"color": BLACK, "width": 1.5, "dash": "dash"}, **at)
        ends = (math.log10(min(x[span][0], 0.8)), math.log10(max(x[span][-1], 1.25)))
        # Below the lowest panel of each column: between two, it would touch the name of the next category.
        lowest = index + columns >= len(scores)
        figure.update_xaxes(range=ends, title="score / threshold" if lowest else None, **at)
    figure.update_xaxes(type="log", tickvals=_TICKS, ticktext=[f"{tick:g}" for tick in _TICKS])
    figure.update_yaxes(title="share of scores", col=1)
    figure.update_yaxes(tickformat=".2~%", rangemode="tozero")
    figure.update_layout(**LAYOUT, height=70 + 270 * rows, legend=_legend(rows))
    return figure, len(night.scores) - len(scores)


_TICKS = [mantissa * 10.0**exponent for exponent in range(-6, 7) for mantissa in (1, 3)]


def _samples(
    tonight: Counts, before: Sequence[Counts], calibration: Sequence[float] | None
) -> Iterator[tuple[str, Counts, Mapping[str, Any]]]:
    """Name, scores on the grid, and how they are drawn."""
    if calibration:
        filled = {"line": {"color": _GREY, "width": 1, "shape": "hvh"}, "fill": "tozeroy", "fillcolor": "#e5e7eb"}
        yield "calibration (normal images)", counted(calibration), filled
    if before:
        yield "earlier nights", np.sum(before, axis=0), {"line": {"color": ORANGE, "width": 2, "dash": "dash"}}
    yield "this night", tonight, {"line": {"color": BLUE, "width": 2}}


def _step(counts: Counts) -> int:
    """Bins of the grid in a bar, a power of two: so many that there are some _BARS bars between the quartiles."""
    low, high = np.searchsorted(np.cumsum(counts), np.array([0.25, 0.75]) * counts.sum())
    return int(2 ** np.clip(np.round(np.log2(max(1, high - low) / _BARS)), 0, 6))


def _shares(counts: Counts, step: int) -> npt.NDArray[np.float64]:
    """Share of the scores in each bar."""
    return np.asarray(counts.reshape(BINS // step, step).sum(axis=1) / max(1, int(counts.sum())))


def _marker(beyond: bool, size: int) -> dict[str, Any]:
    colour, symbol = (VERMILION, "diamond") if beyond else (BLUE, "circle")
    return {"color": colour, "symbol": symbol, "size": size, "line": {"color": "white", "width": 1}}


def _legend(rows: int, y: float = 0.0) -> dict[str, Any]:
    return {"orientation": "h", "y": y or 1 + 0.2 / rows, "yanchor": "bottom", "x": 0, "xanchor": "left"}
