"""What is told of a run that has ended. No secret is in it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from jobs.audit import exits
from jobs.audit.record import RunFolder, RunRecord, now
from jobs.report.verdict import UNKNOWN_SAID, Verdict
from jobs.storage import read_bytes
from jobs.storage_errors import StorageAccessError
from manifests.schema import printable
from manifests.secrets import redacted

if TYPE_CHECKING:
    from jobs.report.findings import Findings

MOST_TEXT = 2000  # characters

Event = Literal["finished", "nothing_new", "failed", "interrupted"]


class Moved(BaseModel):
    """Scores that have moved. line: None for all lines. against: what they were held against. ratio: of the medians;
    index: population stability index; distance: Kolmogorov-Smirnov's D."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str
    line: str | None
    against: str
    verdict: str
    ratio: float
    index: float
    distance: float


class Message(BaseModel):
    """The JSON. text: all of it in a sentence or two, which Slack, Mattermost and Teams show; what they would take for
    a link, a mention or a tag is escaped there, and nowhere else.

    verdict: of the report, None if there is none. rates: anomalous and review as shares of the scored images, failed of
    all; rows that are duplicates count in none of them. seconds: that the command took. links: URIs of the results, the
    run's folder, the report and the review queue. run_id and what follows from it are empty where a command failed
    before it knew its run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    event: Event
    command: str
    text: str
    at: str = Field(default_factory=now)
    exit_code: int
    exit_reason: str
    run_id: str | None = None
    version: int | None = None
    verdict: Verdict | None = None
    sentences: tuple[str, ...] = ()
    rows: int | None = None
    decisions: dict[str, int] = Field(default_factory=dict)
    rates: dict[str, float | None] = Field(default_factory=dict)
    failed_by_code: dict[str, int] = Field(default_factory=dict)
    drift: tuple[Moved, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)
    seconds: float | None = None
    images_per_second: float | None = None
    cost: float | None = None

    @property
    def is_problem(self) -> bool:
        """Whether somebody should do something: it failed, is beyond its error budget, or the report says so; or there
        is no report, so that nobody knows. A first night that has nothing to be held against is none."""
        fine = ("quiet", "unknown")
        return self.exit_code != exits.COMMITTED or (self.event == "finished" and self.verdict not in fine)

    @field_validator("text", "exit_reason", "sentences", "links")
    @classmethod
    def _without_secrets(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: redacted(one) for name, one in value.items()}
        return redacted(value) if isinstance(value, str) else tuple(redacted(one) for one in value)


def finished(command: str, folder: RunFolder, record: RunRecord, code: int) -> Message:
    """Of a run whose results were published now, whatever its exit code."""
    found, problem = _findings(folder, record)
    counts = record.counts
    decisions: dict[str, int] = counts["decisions"]
    scored, failed = counts["status"].get("scored", 0), sum(counts["failed_by_category"].values())
    duplicates = decisions.get("failed", 0) - failed
    images = counts["rows"] - duplicates
    counted = {name: decisions.get(name, 0) for name in ("anomalous", "review")} | {"failed": failed}
    of = {"anomalous": scored, "review": scored, "failed": images}
    rates = {name: counted[name] / every if every else None for name, every in of.items()}
    links = {"results": folder.results, "run": folder.uri, "review_queue": folder.queue(record.version)}
    sentences = (problem,) if found is None else found.sentences
    told = [f"{images:,} images", *(f"{count:,} {name}" for name, count in counted.items())]
    told += [f"{duplicates:,} duplicate rows"] if duplicates else []
    verdict = "no report" if found is None else UNKNOWN_SAID if found.verdict == "unknown" else found.verdict
    head = f"Line Audit {record.run_id}: {verdict}. {', '.join(told)}."
    timings = _timings(command, record)
    return Message(
        event="finished",
        command=command,
        text=_text([head, *sentences[:2], *([] if code == exits.COMMITTED else [f"Exit code {code}."])]),
        exit_code=code,
        exit_reason=record.exit_reason or exits.MEANING[code],
        run_id=record.run_id,
        version=record.version,
        verdict=None if found is None else found.verdict,
        sentences=sentences,
        rows=counts["rows"],
        decisions=decisions,
        rates=rates,
        failed_by_code=counts["failed_by_code"],
        drift=() if found is None else _moved(found),
        links=links | ({} if found is None else {"report": folder.report}),
        seconds=timings.get("seconds"),
        images_per_second=timings.get("images_per_second"),
        cost=(timings.get("cost") or {}).get("total"),
    )


def ended(command: str, event: Event, code: int, reason: str, folder: RunFolder | None) -> Message:
    """Of a command that published nothing. folder: of its run, if it came so far."""
    what = {"failed": "failed", "interrupted": "was interrupted", "nothing_new": "had nothing to do"}[event]
    return Message(
        event=event,
        command=command,
        text=_text([f"Line Audit {folder.run_id if folder else command}: {command} {what}.", reason]),
        exit_code=code,
        exit_reason=reason,
        run_id=None if folder is None else folder.run_id,
        links={} if folder is None else {"run": folder.uri},
    )


def _text(sentences: Sequence[str]) -> str:
    """What chat programs show as it is: names in it come from manifests, and must not notify everybody."""
    plain = html.escape(printable(redacted(" ".join(sentences)), MOST_TEXT), quote=False)
    return plain.replace("@", "@\u200b").replace("](", "]\u200b(")


def _timings(command: str, record: RunRecord) -> dict[str, Any]:
    """Of this command; those of the record are the audit's."""
    if command == "audit":
        return record.timings
    versions = sorted([*record.retries, *record.rethresholds], key=lambda one: int(one.get("version", 0)))
    return {"seconds": versions[-1].get("seconds")} if versions else {}


def _findings(folder: RunFolder, record: RunRecord) -> tuple[Findings | None, str]:
    """The findings of the published version, or why there are none."""
    from jobs.report.findings import Findings  # here: an interrupted command has no second to wait for it

    try:
        found = Findings.model_validate_json(read_bytes(folder.report_json))
    except (FileNotFoundError, ValidationError, StorageAccessError) as error:
        return None, f"There is no report ({type(error).__name__}); line-audit report {folder.uri} makes it."
    if not found.aggregates.are_of(record):
        of = found.aggregates.results_version
        return None, f"The report is of version {of} of the results; line-audit report {folder.uri} makes it."
    return found, ""


def _moved(found: Findings) -> tuple[Moved, ...]:
    return tuple(
        Moved(**{name: getattr(one, name) for name in Moved.model_fields})
        for one in sorted(found.drift.called, key=lambda one: -one.distance)
    )
