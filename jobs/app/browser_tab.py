"""The second tab: the rows of the committed runs, and verdicts on them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from jobs.app.among import ALL, QUEUES, VERDICTS
from jobs.app.browsing import NOTHING, Browsing
from jobs.app.detail import HEADINGS, OPACITY, WIDTHS
from jobs.app.opacity import opacity_slider
from jobs.app.rows import FILTERS
from jobs.app.runs import Runs
from jobs.verdicts import LONGEST_NAME

LIST_PIXELS = 620


def browser_tab(blocks: gr.Blocks, runs: Runs) -> None:
    """Components and events of the tab."""
    events = Browsing(runs)
    run = gr.State(None)
    # Sent by the page with a verdict. What the server holds may be the next row by the time it comes to the verdict.
    chosen = gr.Textbox(visible=False)
    with gr.Row():
        with gr.Column(scale=2, min_width=480):
            with gr.Row():
                run_date = gr.Dropdown([], label="Date", elem_id="la-date", min_width=120)
                name = gr.Dropdown([], label="Run", elem_id="la-run", min_width=120)
                again = gr.Button("Look again", size="sm", min_width=100, scale=0)
            summary = gr.HTML(elem_id="la-summary")
            with gr.Row():
                filters = [
                    gr.Dropdown([], label=c.capitalize(), multiselect=True, min_width=180, elem_id=f"la-{c}")
                    for c in FILTERS
                ]
            with gr.Row():
                queue = gr.Dropdown(list(QUEUES.items()), value=ALL, label="Review", min_width=180, elem_id="la-queue")
                verdict = gr.Dropdown(
                    list(VERDICTS.items()), value=ALL, label="Verdict", min_width=180, elem_id="la-verdict"
                )
            counted = gr.HTML(elem_id="la-counted")
            rows = _list("Rows", LIST_PIXELS, "la-rows-list")
            with gr.Row():
                back = gr.Button("Previous", size="sm", min_width=80)
                number = gr.Number(1, minimum=1, precision=0, show_label=False, min_width=80, elem_id="la-page")
                on = gr.Button("Next", size="sm", min_width=80)
        with gr.Column(scale=3, min_width=640):
            card = gr.HTML(NOTHING, elem_id="la-card")
            with gr.Column(visible=False) as panel:
                shown = gr.HTML(elem_id="la-shown")
                opacity_slider(OPACITY)
                with gr.Row(visible=False) as form:
                    said = gr.Radio([], label="Verdict", elem_id="la-verdicts", scale=3)
                    who = gr.Textbox(label="Who (optional)", max_length=LONGEST_NAME, min_width=120, elem_id="la-who")
                    record = gr.Button("Record", variant="primary", min_width=100, scale=0, elem_id="la-record")
                answer, history = gr.HTML(elem_id="la-answer"), gr.HTML(elem_id="la-history")
                estimate = gr.HTML(elem_id="la-estimate")
                near = _list("Next in score, of the same category", 320, "la-near")
                with gr.Accordion("Provenance", open=False):
                    provenance = gr.HTML(elem_id="la-provenance")

    private: dict[str, Any] = {"api_visibility": "private"}
    chosen_by = [queue, verdict, *filters]
    opened = [run, summary, *chosen_by]
    page: dict[str, Any] = {"inputs": [run, number, *chosen_by], "outputs": [rows, counted, number], **private}

    def first() -> int:
        return 1

    def open_and_show(event: Any) -> None:
        event.then(events.open, [run_date, name], opened, **private).then(first, None, number, **private).then(
            events.show, **page
        )

    open_and_show(blocks.load(events.begin, None, [run_date, name], **private))
    open_and_show(again.click(events.begin, None, [run_date, name], **private))
    open_and_show(run_date.input(events.choose_date, run_date, name, **private))
    open_and_show(name.input(None, None, None, **private))
    for one in chosen_by:
        one.input(first, None, number, **private).then(events.show, **page)
    back.click(events.turn(-1), number, number, **private).then(events.show, **page)
    on.click(events.turn(1), number, number, **private).then(events.show, **page)
    number.submit(events.show, **page)
    detail = [chosen, card, panel, shown, form, said, answer, history, near, provenance]
    for table in (rows, near):
        table.select(events.choose, run, detail, **private)
    recorded = record.click(events.record, [chosen, said, who], [answer, history, summary], **private)
    recorded.success(events.show, **page).then(events.estimate, chosen, estimate, **private)


def _list(label: str, height: int, name: str) -> gr.Dataframe:
    return gr.Dataframe(
        headers=HEADINGS,
        datatype="str",  # text and never markup
        column_widths=WIDTHS,
        type="array",
        interactive=False,
        label=label,
        max_height=height,
        buttons=[],
        elem_id=name,
    )
