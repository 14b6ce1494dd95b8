"""The commands of ``line-audit manifest``: what they print, and the codes they exit with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from jobs.audit import exits
from jobs.manifest.build import build_manifest
from jobs.manifest.diff import CHANGES, diff
from jobs.manifest.inspect import inspect
from jobs.manifest.left_out import told
from jobs.manifest.names import parquet_name
from jobs.manifest.sources import SourceOptions, freeze_sources, open_sources
from jobs.manifest.tables import first_problems, inspection_tables, plain, problem_counts
from jobs.manifest.write import Written, write_sample
from jobs.storage import scratch, upload
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, note, say
from jobs.terminal import output as console
from jobs.uris import normal
from manifests.filters import Filters, parse_sample
from manifests.readers import ReadOptions
from manifests.schema import ManifestError

_CHECKED = {"rows", "good", "problems", "first_problems", "left_out"}


@dataclass(frozen=True)
class Asked:
    """What the commands have in common, as it was given."""

    sources: tuple[str, ...]
    format: str | None
    columns: str | None
    base: str | None
    pattern: str | None
    inventory_date: str | None
    where: str | None
    sample: str | None

    @property
    def uris(self) -> tuple[str, ...]:
        """The sources in one spelling."""
        return tuple(map(normal, self.sources))

    @property
    def options(self) -> SourceOptions:
        """How they are read. Raises ManifestError."""
        columns = ReadOptions.parse_map(self.columns) if self.columns is not None else {}
        # In another place than their manifest's, relative uris would mean other images.
        return SourceOptions(self.format, columns, self.base, self.pattern, self.inventory_date, absolute=True)

    @property
    def filters(self) -> Filters:
        """Which rows are wanted. Raises ValueError."""
        return Filters(where=self.where, sample=None if self.sample is None else parse_sample(self.sample))


def build_command(asked: Asked, output: str) -> int:
    """Write one Parquet manifest: 0, 3 if there were bad rows, which are not in it, 2 usage, 4 storage."""

    def work() -> int:
        found = build_manifest(asked.uris, output, asked.options, asked.filters)
        if found.unmatched:
            note(f"{found.unmatched:,} paths do not match the pattern; the columns that it fills are empty for them")
        size = f", {found.written.bytes:,} bytes" if found.written.bytes is not None else ""
        return _written(found.written, output, size)

    return _guarded(work)


def sample_command(asked: Asked, output: str, rows: int, per: str | None) -> int:
    """Write a manifest of some rows; exits as build."""

    def work() -> int:
        target = parquet_name(output)
        with scratch() as local:
            source = open_sources(asked.uris, asked.options, local)
            with source.read() as reader:
                found = write_sample(reader, source.name, asked.filters, rows, per, local / "manifest", local)
            upload(local / "manifest", target)
        if per is None and found.rows < rows:
            note(f"there are no more than {found.rows:,} to take")
        return _written(found, output, "")

    return _guarded(work)


def inspect_command(asked: Asked, most: int, *, as_json: bool) -> int:
    """Print what a manifest holds: 0, 2 usage, 4 storage."""

    def work() -> int:
        with scratch() as local:
            frozen = freeze_sources(asked.uris, asked.options, asked.filters, local)
            found = inspect(frozen, [local / "frozen" / part for part in frozen.parts], local, most)
        if as_json:
            console.print_json(found.model_dump_json())
            return exits.COMMITTED
        for table in inspection_tables(found):
            console.print(table)
        say(f"{found.rows:,} rows, {found.rows - found.good:,} of them bad")
        if left_out := told(found.left_out):
            say(f"left out: {left_out}")
        return exits.COMMITTED

    return _guarded(work)


def validate_command(asked: Asked, show: int, *, as_json: bool) -> int:
    """Print the bad rows: 0 if there are none, 3 if there are, 2 if the manifest cannot be used, 4 storage."""

    from jobs.audit.carry import check_carried  # with all that an audit loads, which takes a while
    from jobs.audit.plan import TAKEN

    def work() -> int:
        with scratch() as local:
            frozen = freeze_sources(asked.uris, asked.options, asked.filters, local, reserved=TAKEN)
            check_carried(", ".join(asked.uris), frozen, local / "frozen", local)
            found = inspect(frozen, [local / "frozen" / part for part in frozen.parts], local, 1, show)
        bad = found.rows - found.good
        if as_json:
            console.print_json(found.model_dump_json(include=_CHECKED))
        else:
            for table in (problem_counts(found), first_problems(found)):
                if table.rows:
                    console.print(table)
            say(f"{found.rows:,} rows, {bad:,} of them bad" if bad else f"{found.rows:,} rows, all of them good")
        return exits.BUDGET_EXCEEDED if bad else exits.COMMITTED

    return _guarded(work)


def diff_command(asked: Asked, output: str | None, *, as_json: bool) -> int:
    """Print what is new, gone or changed: 0, 2 usage, 4 storage."""

    def work() -> int:
        target = None if output is None else parquet_name(output)
        with scratch() as local:
            before, after = (_parts(asked, (uri,), local / str(number)) for number, uri in enumerate(asked.uris))
            found = diff(before, after, local, local / "differences" if target is not None else None)
            if target is not None:
                upload(local / "differences", target)
        if as_json:
            console.print_json(found.model_dump_json())
            return exits.COMMITTED
        table = Table(title="images since then", title_justify="left")
        for heading in ("line", *CHANGES):
            table.add_column(heading, justify="left" if heading == "line" else "right")
        for line, counts in found.by_line.items():
            table.add_row(plain(line) or "of no line", *(f"{counts[change]:,}" for change in CHANGES))
        if table.rows:
            console.print(table)
        say(f"{found.new:,} new, {found.gone:,} gone, {found.changed:,} changed, {found.same:,} the same")
        if any(found.bad):
            note(f"bad rows are not compared: {found.bad[0]:,} of the first manifest, {found.bad[1]:,} of the second")
        return exits.COMMITTED

    return _guarded(work)


def _parts(asked: Asked, uris: tuple[str, ...], local: Path) -> list[Path]:
    local.mkdir()
    return [local / "frozen" / part for part in freeze_sources(uris, asked.options, asked.filters, local).parts]


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except (ManifestError, ValueError) as error:
        complain(str(error))
        return exits.USAGE
    except exits.AuditError as error:
        complain(error.message)
        return error.code
    except (StorageAccessError, OSError) as error:
        complain(str(error))
        return exits.NO_ACCESS


def _written(found: Written, output: str, size: str) -> int:
    if left_out := told(found.left_out):
        note(f"left out: {left_out}")
    say(f"{found.rows:,} images{size}: {output}")
    if not found.bad:
        return exits.COMMITTED
    complain(
        f"{found.bad:,} bad rows are not in it, the first: {found.first_bad}; "
        "line-audit manifest validate shows all of them"
    )
    return exits.BUDGET_EXCEEDED
