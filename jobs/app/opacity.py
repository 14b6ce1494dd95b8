"""The slider that lays an overlay over its picture more or less: nothing is computed for it."""

from __future__ import annotations

import gradio as gr


def opacity_slider(variable: str) -> gr.Slider:
    """A slider that sets a CSS variable of the page to 0 ... 1."""
    slider = gr.Slider(0, 100, 100, step=1, label="Overlay, % (100: as the audit draws it)", buttons=[])
    js = f"(share) => {{ document.documentElement.style.setProperty('{variable}', share / 100); }}"
    slider.change(None, slider, None, js=js, api_visibility="private")
    return slider
