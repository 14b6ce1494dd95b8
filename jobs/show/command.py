"""``line-audit show``: prints rows, writes their pictures, and returns the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from jobs.audit import exits
from jobs.audit.committed import committed, run_folder
from jobs.audit.exits import AuditError
from jobs.commands import ended
from jobs.show.maps import error_map
from jobs.show.pictures import turned_upright, write_pictures
from jobs.show.rows import PublishedRow, find_rows
from jobs.storage import filesystem
from jobs.terminal import note, say
from jobs.uris import normal
from manifests.schema import MAX_URI, printable


@dataclass(frozen=True)
class Settings:
    """run: URI of the run's folder. images: image_ids or beginnings of them; uris: of images. target: where the
    pictures go. bundle: where the run's bundle is now, for runs whose record does not tell how images were turned."""

    run: str
    images: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    target: str = "."
    bundle: str | None = None


def show_command(settings: Settings) -> int:
    """Show rows of a committed run; returns the exit code: 0, 1 the run is damaged, 2 usage, 4 storage."""
    return ended(lambda: _show(settings))


def _show(settings: Settings) -> None:
    if not settings.images and not settings.uris:
        raise AuditError(exits.USAGE, "name an image: its image_id, the beginning of it, or its --uri")
    target = _writable(settings.target)
    folder = run_folder(settings.run)
    record = committed(folder)
    rows = find_rows(folder, settings.images, settings.uris)

    @cache
    def upright() -> bool:
        return turned_upright(record, settings.bundle)

    say(f"run {record.run_id}, version {record.version} of the results")
    for row in rows:
        say("")
        for name, value in _told(row):
            say(f"{name:<13} {value}")
        if row.score is None:
            note(f"{row.image_id}: it has no score, so there is no error map and no picture of one")
            continue
        made = write_pictures(row, error_map(folder, record, row), record, upright, target)
        for file in made.files:
            say(f"{'written':<13} {file}")
        if made.without_image is not None:
            note(f"{row.image_id}: {made.without_image}; only its heatmap was made")


def _writable(uri: str) -> str:
    try:
        filesystem(uri)
    except ValueError as error:
        raise AuditError(exits.USAGE, f"--to {error}") from error
    return normal(uri)


def _told(row: PublishedRow) -> Iterator[tuple[str, str]]:
    """What the terminal shows of a row; what came with the manifest is made printable."""
    yield "image_id", row.image_id
    yield "uri", _text(row.uri)
    yield "line", _text(row.line)
    yield "camera", _text(row.camera)
    yield "captured_at", "-" if row.captured_at is None else row.captured_at.isoformat()
    yield "decision", row.decision + (f" ({row.decision_reason})" if row.decision_reason else "")
    if row.status == "failed":
        yield "failed", printable(f"{row.error_stage}/{row.error_code}: {row.error_message}")
    yield "category", _text(row.category)
    for name in ("score", "threshold", "margin", "p_value"):
        value: float | None = getattr(row, name)
        yield name, "-" if value is None else f"{value:.6g}"
    at = f"x {row.peak_x:.1f}, y {row.peak_y:.1f}" if row.peak_x is not None and row.peak_y is not None else "-"
    yield "peak", at + (f" of {row.width} x {row.height} pixels" if row.width is not None else "")


def _text(value: str | None) -> str:
    return "-" if value is None else printable(value, MAX_URI)
