"""What the colours of a heatmap mean, written below a picture that people look at alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from anomaly_core.heatmap import STOPS, heatmap

TICKS = (("0", 0.0), ("T/2", 0.5), ("T", 1.0), ("2T", 2.0))  # name, error / threshold
BACKGROUND, INK = (229, 231, 235), (17, 24, 39)  # light, but not as the end of the bar
# The size of the text in pixels, by which everything else is measured, and the narrowest legend in such sizes.
_LEAST_TEXT, _WIDTH_TO_TEXT, _NARROWEST = 12, 50, 36


def with_legend(picture: npt.NDArray[np.uint8], threshold: float, score: float) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) with a colour bar below it, from 0 to twice the threshold, on which the score is marked.

    uint8 (H + legend, W or more, 3): the picture is in its upper left corner, as it was. A score above twice the
    threshold is marked at the end of the bar; its figure is beside the mark.
    """
    height, width = picture.shape[:2]
    text = max(_LEAST_TEXT, width // _WIDTH_TO_TEXT)
    left, top, bar_height = text, 3 * text, text
    bar_width = max(width, _NARROWEST * text) - 2 * text
    colours = heatmap(np.linspace(0, STOPS[-1, 0], bar_width, dtype=np.float32)[None])
    legend = Image.new("RGB", (bar_width + 2 * text, 6 * text), BACKGROUND)
    legend.paste(Image.fromarray(colours.repeat(bar_height, axis=0)), (left, top))
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(size=text)

    def place(relative: float) -> int:
        return left + round(min(max(relative / STOPS[-1, 0], 0.0), 1.0) * (bar_width - 1))

    def write(said: str, x: int, y: int) -> None:
        half = draw.textlength(said, font) / 2
        draw.text((min(max(x, left + half), left + bar_width - half), y), said, INK, font, anchor="mt")

    for name, relative in TICKS:
        x = place(relative)
        draw.line([(x, top + bar_height), (x, top + bar_height + text // 3)], INK, max(1, text // 12))
        value = f" = {relative * threshold:.4g}" if relative else ""
        write(f"{name}{value}", x, top + bar_height + 2 * text // 3)
    x = place(score / threshold)
    draw.polygon([(x, top - 1), (x - text // 3, top - 1 - text // 2), (x + text // 3, top - 1 - text // 2)], INK)
    write(f"score {score:.4g} = {score / threshold:.4g} T", x, top - 2 * text)

    result = np.empty((height + legend.height, legend.width, 3), np.uint8)
    result[:] = BACKGROUND
    result[:height, :width] = picture
    result[height:] = np.asarray(legend)
    return result
