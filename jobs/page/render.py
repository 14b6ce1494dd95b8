"""From a template and its content to a page."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from jobs.visible import visible


def page(package: str, content: dict[str, Any]) -> str:
    """The HTML of ``page.html`` in a package, which may extend base.html. Whatever names say is text, never markup."""
    loader = ChoiceLoader([PackageLoader(name, ".") for name in (package, "jobs.page")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_visible)
    environment.filters["percent"] = percent
    return environment.get_template("page.html").render(plotly=Markup(get_plotlyjs()), **content)  # noqa: S704


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def figure(drawn: Figure, name: str | None = None) -> Markup:
    """A figure as a part of a page. What is text in it must be text for plotly, too: see plots.plain. name: its id in
    the page, if it is to have one that stays."""
    html = drawn.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displaylogo": False, "responsive": True}
    )
    return Markup(html)  # noqa: S704


def picture(png: bytes) -> str:
    """A PNG file as the address of an image."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def percent(share: float | None) -> str:
    """Such as ``0.43 %``, with three digits."""
    return "-" if share is None else f"{100 * share:.3g} %"
