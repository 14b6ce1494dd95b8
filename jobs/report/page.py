"""The page of a report, put together from what was found."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from jobs.audit.record import RunFolder, RunRecord, now
from jobs.escapes import Estimate, told
from jobs.page import render
from jobs.report import charts
from jobs.report.aggregates import NAMED_BY, Kind
from jobs.report.calibration import Calibrated
from jobs.report.control import NIGHTS_NEEDED
from jobs.report.details import Details
from jobs.report.findings import Findings
from jobs.report.gallery import Tile
from jobs.report.history import History
from jobs.report.names import group, shown
from jobs.report.provenance import provenance, throughput
from jobs.report.rates import MEASURES, Key, Rate, Series, series
from jobs.report.verdict import UNKNOWN_SAID
from jobs.storage import read_bytes
from jobs.storage_errors import StorageAccessError

MOST_PANELS = 9  # control charts: of all images, and of groups that are outside
VERDICTS = {"unknown": UNKNOWN_SAID, "quiet": "quiet", "watch": "to watch", "alarm": "alarm"}


def page(
    folder: RunFolder,
    record: RunRecord,
    found: Findings,
    before: History,
    calibrated: Calibrated,
    details: Details,
    tiles: Sequence[Tile],
) -> str:
    """The HTML, one file that needs no other."""
    all_series = series(found.aggregates, before.nights)
    scores, left_out = charts.distributions(found.aggregates, before.nights, calibrated.scores)
    estimate, estimate_problem = _estimate(folder, record)
    content = {
        "folder": folder,
        "record": record,
        "found": found,
        "verdict": VERDICTS[found.verdict],
        "made_at": now(),
        "before": before,
        "calibrated": calibrated,
        "details": details,
        "tiles": tiles,
        "total": found.aggregates.total,
        "nights_needed": NIGHTS_NEEDED,
        "measures": MEASURES,
        "nights": _nights(found, all_series),
        "groups": [one for kind in NAMED_BY if (one := _groups(kind, found))],
        "scores": render.figure(scores, "scores") if found.aggregates.scores else None,
        "scores_left_out": left_out,
        "estimate": estimate,
        "estimate_problem": estimate_problem,
        "queue": folder.queue(record.version),
        "throughput": throughput(record),
        "provenance": provenance(folder, record),
        "shown": shown,
        "group": group,
    }
    return render.page("jobs.report", content)


def _nights(found: Findings, all_series: dict[Key, Series]) -> Markup | None:
    """Control charts of all images, and of the groups that are outside; None if no rate has limits."""
    judged = [one for one in found.rates.rates if one.limits and (one.of == "all" or one.outside)]
    judged.sort(key=lambda one: (one.of != "all", not one.alarm))
    keys: list[Key] = [(one.measure, one.of, one.names) for one in judged[:MOST_PANELS]]
    return (
        render.figure(charts.through_the_nights([(key, all_series[key]) for key in keys]), "nights") if keys else None
    )


def _groups(kind: Kind, found: Findings) -> tuple[str, Markup, list[tuple[str, list[Rate]]], int] | None:
    """Of a kind: its name, chart, rates by group in the order of the measures, and how many groups are not shown.

    None if no row names one.
    """
    rates = [one for one in found.rates.rates if one.of == kind]
    rows: dict[tuple[str, ...], list[Rate]] = {}
    for one in rates:
        rows.setdefault(one.names, []).append(one)
    if not any(any(names) for names in rows):
        return None
    table = [(group(names), rows[names]) for names in sorted(rows)]
    return (
        kind,
        render.figure(charts.against_limits(rates), f"rates-{kind}"),
        table,
        found.aggregates.not_kept.get(kind, 0),
    )


def _estimate(folder: RunFolder, record: RunRecord) -> tuple[list[str], str]:
    """What people's verdicts say of the published version, and what is wrong with that."""
    try:
        found = TypeAdapter(Estimate).validate_json(read_bytes(folder.estimate))
    except FileNotFoundError:
        return [], ""
    except (ValidationError, StorageAccessError) as error:
        return [], f"the estimate cannot be read: {error}"
    if found.version != record.version:
        return [], f"there is an estimate of version {found.version}, and none of version {record.version}"
    return told(found) + found.remarks, ""
