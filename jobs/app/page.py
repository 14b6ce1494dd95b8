"""The page: a tab for single images where there is a bundle, one for runs where there is an output."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from anomaly_core.inspector import Inspector
from jobs.app.browser_tab import browser_tab
from jobs.app.inspection_tab import inspection_tab
from jobs.app.markup import html
from jobs.app.runs import Runs

_UPLOADS = (600, 3600)  # looked at every ten minutes, gone after an hour


def build(inspector: Inspector | None, warnings: Sequence[str] = (), runs: Runs | None = None) -> gr.Blocks:
    """The page and its endpoint. warnings: what to tell people beside what the bundle itself warns of."""
    parts = []
    if inspector is not None:
        parts += [f"{inspector.precision} on {inspector.device}", f"bundle {inspector.bundle.digest[:12]}"]
    if runs is not None:
        parts.append(runs.output)
    with gr.Blocks(title="Line Audit", analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS) as blocks:
        gr.HTML(html("head", parts=parts))
        with gr.Tabs():
            if inspector is not None:
                with gr.Tab("Inspect one image"):
                    inspection_tab(blocks, inspector, warnings)
            if runs is not None:
                with gr.Tab("Browse runs"):
                    browser_tab(blocks, runs)
    return blocks
