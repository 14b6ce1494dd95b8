"""What the second tab does when somebody chooses something: every method is an event of the page."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from pydantic import BaseModel, Field, ValidationError

from jobs.app import detail, recording
from jobs.app.among import ALL, among
from jobs.app.evidence import evidence
from jobs.app.markup import html
from jobs.app.recording import Recorder
from jobs.app.rows import FILTERS, PAGE_ROWS, Row, choices, neighbours, page, whole_row
from jobs.app.runs import BrowsedRun, RunName, Runs
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.storage_errors import StorageAccessError

NOTHING = html("quiet", text="Choose a row: it is shown here.")
_NONE, _SOME = "", "="  # a choice is a text: of rows without a value, or with the one that follows

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def told(event: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """The event, whose errors that are meant for people become messages of the page. It takes them for HTML."""

    @wraps(event)
    def telling(*args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        try:
            return event(*args, **kwargs)
        except (AuditError, StorageAccessError) as error:
            raise gr.Error(escape(str(error)), duration=None, print_exception=False) from error

    return telling


class Chosen(BaseModel):
    """A row that is shown, as the page holds it. row: its place in the published table."""

    run: RunName
    row: int = Field(ge=0, lt=2**63)

    @classmethod
    def of(cls, sent: str) -> Chosen:
        """From what the page has sent, which can be anything. Raises AuditError."""
        try:
            return cls.model_validate_json(sent)
        except ValidationError:
            raise AuditError(exits.USAGE, "choose a row first") from None


class Browsing:
    """The events, for all users: what one of them has chosen is in the page."""

    def __init__(self, runs: Runs):
        self.runs, self.recorder = runs, Recorder()

    @told
    def begin(self) -> tuple[Any, Any]:
        """The dates, and the last committed run."""
        dates, latest = self.runs.dates(), None
        try:
            latest = self.runs.latest()
        except AuditError as error:  # of one run that cannot be read; the others can be chosen
            gr.Warning(escape(str(error)), duration=None)
        if latest is None:
            return gr.Dropdown(choices=dates, value=None), gr.Dropdown(choices=[], value=None)
        run_date, name = latest
        names = self.runs.names(run_date)
        return gr.Dropdown(choices=dates, value=run_date), gr.Dropdown(choices=names, value=name)

    @told
    def choose_date(self, run_date: str | None) -> Any:
        """The committed runs of a date."""
        names = self.runs.names(run_date) if run_date else []
        return gr.Dropdown(choices=names, value=names[0] if names else None)

    @told
    def open(self, run_date: str | None, name: str | None) -> tuple[Any, ...]:
        """The run, a line about it, all rows by queue and verdict, and the values of each filter."""
        if not run_date or not name:
            empty = [gr.Dropdown(choices=[], value=[]) for _ in FILTERS]
            return None, html("lines", lines=["No committed run is chosen."]), ALL, ALL, *empty
        run = self.runs.open(run_date, name)
        run.log.refresh()
        found = [
            gr.Dropdown(choices=[_choice(value) for value in choices(run.connection, column)], value=[])
            for column in FILTERS
        ]
        return run.name, detail.summary(run), ALL, ALL, *found

    @told
    def show(
        self, name: RunName | None, number: float | None, queue: str | None, verdict: str | None, *filters: list[str]
    ) -> tuple[Any, str, int]:
        """A page of rows, what it is one of, and its number."""
        if name is None:
            return [], html("lines", lines=[""]), 1
        run = self.runs.held(name)
        wanted = {
            column: [None if value == _NONE else value.removeprefix(_SOME) for value in values]
            for column, values in zip(FILTERS, filters, strict=True)
        }
        found = page(run.connection, wanted, int(number or 1), among(run, queue, verdict))
        first = (found.number - 1) * PAGE_ROWS
        said = "No row is like that."
        if found.rows:
            said = f"Rows {first + 1:,} to {first + len(found.rows):,} of {found.total:,}, worst first. "
            said += f"Page {found.number:,} of {found.pages:,}."
        return detail.cells(found.rows, run.log.in_force()), html("lines", lines=[said]), found.number

    def turn(self, by: int) -> Callable[[float | None], float]:
        """The number of the page so many further."""
        return lambda number: max(1, (number or 1) + by)

    @told
    def choose(self, name: RunName | None, picked: gr.SelectData) -> tuple[Any, ...]:
        """The row that was clicked in a list: which it is, card, pictures, form and choices of a verdict, history,
        neighbours and provenance."""
        cells = picked.row_value
        place = str(cells[0]) if isinstance(cells, list) and cells else ""
        if name is None or not place.isdecimal():
            raise AuditError(exits.USAGE, "choose a row first")
        run, row = self._row(name, int(place))
        run.log.refresh()
        near = neighbours(run.connection, int(place), row["category"]) if row["score"] is not None else []
        may = recording.choices(row)
        return (
            Chosen(run=name, row=int(place)).model_dump_json(),
            detail.card(row),
            gr.Column(visible=True),
            detail.shown(row, evidence(run, row)),
            gr.Row(visible=bool(may)),
            gr.Radio(choices=may, value=None),
            html("lines", lines=[] if may else ["A failed row has no verdict: nobody decided about the part."]),
            detail.history(run.log.history(row["image_id"])),
            detail.cells(near, run.log.in_force()),
            detail.provenance(run, row),
        )

    @told
    def record(self, chosen: str, said: str | None, who: str | None, request: gr.Request) -> tuple[str, str, str]:
        """Record a verdict; what became of it, the history of the image, and the line about the run."""
        asked = Chosen.of(chosen)
        run, row = self._row(asked.run, asked.row)
        verdict = self.recorder.record(run, row, said, recording.signed(who, request.username))
        said_so = html("lines", lines=[f"Recorded: {verdict.said}; the part is {verdict.verdict}."])
        return said_so, detail.history(run.log.history(row["image_id"])), detail.summary(run)

    @told
    def estimate(self, chosen: str) -> str:
        """What all verdicts on a run say by now. After each, and not with it: it reads the decisions of the run."""
        return html("lines", lines=self.recorder.estimate(self.runs.held(Chosen.of(chosen).run)))

    def _row(self, name: RunName, place: int) -> tuple[BrowsedRun, Row]:
        run = self.runs.held(name)
        row = whole_row(run.connection, run.table, place) if place < 2**63 else None
        if row is None:
            raise AuditError(exits.USAGE, f"the run has no row {place}")
        return run, row


def _choice(value: str | None) -> tuple[str, str]:
    return ("(none)", _NONE) if value is None else (value, _SOME + value)
