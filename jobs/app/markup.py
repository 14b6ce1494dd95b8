"""HTML for the page. Whatever names, addresses and messages say is text, never markup."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomaly_core.heatmap import STOPS

_ENVIRONMENT = Environment(loader=PackageLoader("jobs.app"), autoescape=True, undefined=StrictUndefined)
_ENVIRONMENT.globals["most"] = float(STOPS[-1, 0])
_ENVIRONMENT.globals["gradient"] = ", ".join(
    f"rgb({r:.0f} {g:.0f} {b:.0f}) {at / STOPS[-1, 0]:.1%}" for at, r, g, b, _ in STOPS
)


@dataclass(frozen=True)
class Figure:
    """A picture with its caption. layers: addresses of images, the upper one with the opacity that is chosen. said: if
    there are none, why. ring: the place that is ringed, as shares of width and height."""

    caption: str
    layers: tuple[str, ...] = ()
    said: str = ""
    ring: tuple[float, float] | None = None


def html(template: str, **values: object) -> str:
    """A template of this package, filled in. Every value is escaped."""
    return _ENVIRONMENT.get_template(f"{template}.html").render(values)


def pictures(
    figures: Sequence[Figure], opacity: str, ratio: float = 1.0, threshold: float | None = None, margin: float = 0.0
) -> str:
    """Pictures side by side above the legend of their colours.

    opacity: name of the CSS variable of the upper layers' opacity. ratio: width / height of the image. threshold,
    margin: of the image, for the legend.
    """
    marked = None if threshold is None else margin
    return html("pictures", figures=figures, opacity=opacity, ratio=ratio, threshold=threshold, margin=marked)


def address(data: bytes, kind: str = "image/png") -> str:
    """The bytes of a file as an address that needs no server."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
