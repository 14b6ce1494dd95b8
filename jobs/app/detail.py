"""A row for people: its figures, pictures, provenance and what was said of it, as HTML and cells of lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobs.app.evidence import Evidence, Seen
from jobs.app.markup import Figure, address, html, pictures
from jobs.app.rows import Row
from jobs.app.runs import BrowsedRun
from jobs.audit.record import RunRecord
from jobs.audit.results import COLUMNS
from jobs.verdicts import Verdict
from manifests.schema import printable

OPACITY = "--la-browse"
HEADINGS = ["Row", "Decision", "Margin", "Verdict", "Category", "Line", "Camera", "Captured", "Image"]
WIDTHS = ["72px", "98px", "72px", "92px", "92px", "62px", "80px", "160px", "290px"]
LONGEST_VALUE = 2000


def cells(rows: Sequence[Row], verdicts: dict[str, Verdict]) -> list[list[str]]:
    """Rows of a list under HEADINGS; the first cell names the row."""
    return [
        [
            str(row["row"]),
            row["decision"],
            _number(row["margin"], ".3f"),
            _said(verdicts.get(row["image_id"])),
            *(text(row[column]) for column in ("category", "line", "camera")),
            _time(row["captured_at"]),
            row["image_id"],
        ]
        for row in rows
    ]


def text(value: object) -> str:
    """A value of any column for people."""
    if value is None:
        return ""
    return printable(value.isoformat(" ") if isinstance(value, datetime) else str(value), LONGEST_VALUE)


def card(row: Row) -> str:
    """The decision of a row and the figures that led to it."""
    said = f"{text(row['error_stage'])}: {text(row['error_message'])}" if row["error_code"] else text(row["uri"])
    pairs = {
        "Score": _number(row["score"], ".6g"),
        "Threshold": _number(row["threshold"], ".6g"),
        "Margin (score / threshold)": _number(row["margin"], ".4f"),
        "p-value (normal images as high)": _number(row["p_value"], ".2%"),
        "Category": text(row["category"] or row["declared_category"]),
        "Routing confidence": _number(row["category_confidence"], ".1%"),
        "Line, camera": ", ".join(filter(None, (text(row["line"]), text(row["camera"])))),
        "Captured": _time(row["captured_at"]),
        "Why": text(row["decision_reason"] or row["error_code"]).replace(",", ", ").replace("_", " "),
    }
    shown = {name: value for name, value in pairs.items() if value}
    return html("card", style=row["decision"], badge=row["decision"].capitalize(), text=said, pairs=shown, wide=True)


def shown(row: Row, found: Evidence) -> str:
    """Original, heatmap and overlay side by side; under the overlay lies the original."""
    under = [_source(found.original)] if found.original.data else []
    ring = None
    if row["peak_x"] is not None and row["width"] and row["height"]:
        ring = row["peak_x"] / row["width"], row["peak_y"] / row["height"]
    over = Figure("Overlay, highest error ringed", said=found.overlay.problem)
    if found.overlay.data:
        over = Figure(over.caption, (*under, _source(found.overlay)), ring=ring)
    figures = [_figure("Original", found.original), _figure("Heatmap", found.heatmap), over]
    return pictures(figures, OPACITY, found.ratio, row["threshold"], row["margin"])


def provenance(run: BrowsedRun, row: Row) -> str:
    """Every column of a row with what it means, and what the run was made with."""
    meaning = {column.name: column.meaning for column in COLUMNS}
    lines = [(name, text(value), meaning.get(name, "as the manifest says")) for name, value in row.items()]
    lines += [(name, text(value), what) for name, value, what in _of_run(run.record)]
    return html("table", headings=("Column", "Value", "Meaning"), lines=lines)


def history(verdicts: Sequence[Verdict]) -> str:
    """Everything that was said of an image, the verdict in force first."""
    lines = [
        (f"{one.at:%Y-%m-%d %H:%M:%S}", one.said, one.verdict, one.who or "", f"{one.decision}, version {one.version}")
        for one in reversed(verdicts)
    ]
    headings = ("When (UTC)", "Said", "The part is", "Who", "Decision then")
    return html("table", headings=headings, lines=lines) if lines else ""


def summary(run: BrowsedRun) -> str:
    """A run in one line."""
    record, verdicts = run.record, run.log.in_force()
    decisions = ", ".join(f"{count:,} {name}" for name, count in sorted(record.counts["decisions"].items()))
    said = f"{record.counts['rows']:,} rows: {decisions}. Version {record.version} of the results."
    return html("lines", lines=[f"{said} Verdicts on images: {len(verdicts):,}."])


def _of_run(record: RunRecord) -> list[tuple[str, Any, str]]:
    parts = record.parts
    made = f"of the results: {len(record.retries)} retries, {len(record.rethresholds)} rethresholds"
    return [
        ("manifest", record.manifest, "the manifest that was audited"),
        ("manifest digest", parts["manifest"], "SHA-256 that names the frozen manifest"),
        ("bundle", record.bundle, "where the bundle was"),
        ("precision, device", f"{parts['precision']}, {record.device}", "what the models computed in"),
        ("cpu", record.cpu, "of the machine that began the run"),
        ("fingerprint", record.fingerprint, "SHA-256 over everything that changes a result"),
        ("created", record.created_at, "when the run was begun"),
        ("finished", record.finished_at, "when it was committed"),
        ("version", record.version, made),
        *(
            (f"code: {name}", value, "version that the run was begun with")
            for name, value in sorted(parts["code"].items())
        ),
        *(("code change", change["to"], "version that finished the run, or retried") for change in record.code_changes),
    ]


def _figure(caption: str, seen: Seen) -> Figure:
    return Figure(caption, (_source(seen),) if seen.data else (), said=seen.problem)


def _source(seen: Seen) -> str:
    return address(seen.data, seen.kind)


def _said(verdict: Verdict | None) -> str:
    return "" if verdict is None else verdict.said if verdict.said == "unsure" else verdict.verdict


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _time(value: datetime | None) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"
