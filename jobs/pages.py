"""Pages for people: one HTML file that needs nothing else, with charts. Whatever names say is text, never markup."""

from __future__ import annotations

import html
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 55, "r": 20, "t": 50, "b": 50},
    "font": {"size": 13},
}
# Colours that people with any vision tell apart (Okabe and Ito 2008).
BLACK, BLUE, ORANGE, GREEN, VERMILION, SKY = "#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"


def rendered(template: str, **values: Any) -> str:
    """The HTML of a template below this folder, which extends ``base.html``."""
    environment = Environment(loader=PackageLoader("jobs", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters["percent"] = percent
    plotly = Markup(get_plotlyjs())  # noqa: S704
    return environment.get_template(template).render(plotly=plotly, **values)


def chart(figure: Figure, name: str) -> Markup:
    """A figure as part of a page. name: its id there."""
    html_of_it = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displaylogo": False, "responsive": True}
    )
    return Markup(html_of_it)  # noqa: S704


def plain(text: str) -> str:
    """A text for a figure, which would take some tags for markup."""
    return html.escape(text, quote=False)


def percent(share: float | None) -> str:
    """Such as ``0.43 %``, with three digits."""
    return "-" if share is None else f"{100 * share:.3g} %"
