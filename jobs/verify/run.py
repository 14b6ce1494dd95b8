"""All checks of a run, in order. Nothing is written below the run's output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from anomaly_core.forms import BackboneForm
from jobs.audit import exits
from jobs.audit.commit import database
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord, Unfinished, fingerprint, read_record
from jobs.storage import exists, scratch
from jobs.storage_errors import StorageAccessError
from jobs.uris import normal
from jobs.verify import files, table
from jobs.verify.check import Check, readable
from manifests.freeze import FrozenManifest

if TYPE_CHECKING:
    from anomaly_core.bundle import Bundle

_OTHERWISE = "name a copy of it with --bundle, or leave out rescoring with --sample 0"


@dataclass(frozen=True)
class Settings:
    """run: URI of the run's folder. bundle: None for the one that run.json names. sample: images to rescore, 0 for
    none. weights and form: the backbone, for a bundle of the reference's files."""

    run: str
    bundle: str | None = None
    sample: int = 20
    seed: int = 0
    device: str = "auto"
    weights: str | None = None
    form: BackboneForm | None = None


@dataclass(frozen=True)
class Report:
    """What a verification found."""

    run_id: str
    uri: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether no check failed; what could not be checked is no failure."""
        return all(check.status != "failed" for check in self.checks)


def verify(settings: Settings) -> Report:
    """Check a committed run.

    Raises AuditError (USAGE: no such run, not committed, run.json cannot be read, or a bundle that was named and cannot
    be used), StorageAccessError.
    """
    try:
        folder = RunFolder.at(settings.run)
        record = read_record(folder)
    except ValueError as error:
        raise AuditError(exits.USAGE, str(error)) from error
    if record is None:
        raise AuditError(exits.USAGE, f"{folder.uri}: there is no such run (no run.json)")
    committed = exists(folder.success)
    if not committed and record.state != "committed":
        raise AuditError(
            exits.USAGE, f"run {record.run_id} is not committed ({record.state}): its audit command finishes it"
        )
    frozen, device = _frozen(folder, record), _device(settings)
    checks = [_record(folder, record, committed)]
    with scratch() as local:
        checks += _checks(settings, folder, record, frozen, device, local)
    return Report(record.run_id, folder.uri, tuple(checks))


def _device(settings: Settings) -> str:
    """Where images are scored again. Raises AuditError."""
    if not settings.sample:
        return settings.device
    from anomaly_core.device import resolve_device  # here: torch takes seconds to import, and is not always needed

    try:
        return resolve_device(settings.device)
    except ValueError as error:
        raise AuditError(exits.USAGE, str(error)) from error


def _frozen(folder: RunFolder, record: RunRecord) -> FrozenManifest:
    lacking = {"manifest", "bundle", "precision", "settings", "code"} - set(record.parts)
    if lacking:
        raise AuditError(exits.FAILED, f"{folder.record}: it does not say its {', '.join(sorted(lacking))}")
    try:
        return FrozenManifest.from_dict(record.frozen)
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise AuditError(exits.FAILED, f"{folder.record}: its shard plan cannot be read ({error!r})") from error


def _record(folder: RunFolder, record: RunRecord, committed: bool) -> Check:
    problems = []
    if record.run_id != folder.run_id:
        problems.append(f"it is of run {record.run_id}")
    if fingerprint(record.parts) != record.fingerprint:
        problems.append("its fingerprint is not that of its parts")
    if not committed:
        problems.append("_SUCCESS is missing; the same audit command writes it")
    if record.state != "committed":
        problems.append(f"_SUCCESS is there, but the state is {record.state}")
    if problems:
        return Check("run.json", "failed", "; ".join(problems))
    moved = "" if normal(record.results) == folder.results else f"; a copy, the run was written to {record.results}"
    left = record.unfinished
    if left is None and exists(folder.retry(len(record.retries) + 2).record):  # it has published nothing yet
        left = Unfinished(command="retry-failed")
    unfinished = "" if left is None else f"; {left.told(folder.uri)}"
    return Check("run.json", "ok", f"committed {record.finished_at}{moved}{unfinished}")


def _checks(
    settings: Settings, folder: RunFolder, record: RunRecord, frozen: FrozenManifest, device: str, local: Path
) -> Iterator[Check]:
    manifest, parts = files.manifest_files(folder, frozen, local)
    yield manifest
    yield readable("shards", lambda: files.shard_files(folder, record, frozen, local))
    try:
        path = files.at_hand(folder.results, local / "table.parquet")
    except FileNotFoundError:
        yield Check("table", "failed", f"not there: {folder.results}")
        return
    yield files.table_file(record, path)
    yield readable("schema", lambda: table.schema(path, frozen))
    yield readable("footer", lambda: table.footer(path, record))
    which = record.parts["settings"]["heatmaps"]
    with database(local) as connection:
        try:
            table.open_views(connection, path, parts)
        except duckdb.Error as error:
            yield Check("rows", "failed", f"cannot be counted: {str(error).splitlines()[0][:200]}")
            return
        yield readable("rows", lambda: table.rows(connection, record, frozen))
        yield readable("counts", lambda: table.counts(connection, record))
        yield readable("pictures", lambda: table.pictures(connection, folder, which))
        if settings.sample:
            from jobs.verify.rescore import rescore

            bundle, check = _bundle(settings, record)
            yield check
            if bundle is not None:
                known = bundle
                yield readable(
                    "scores",
                    lambda: rescore(connection, record, known, device, settings.sample, settings.seed),
                )


def _bundle(settings: Settings, record: RunRecord) -> tuple[Bundle | None, Check]:
    """The bundle, if it is the one that the run was scored with."""
    from jobs.bundles import read_bundle

    uri = normal(settings.bundle or record.bundle)
    try:
        bundle = read_bundle(uri, settings.weights, settings.form)
    except StorageAccessError as error:
        if settings.bundle is not None:
            raise
        return None, Check("bundle", "not checked", f"{error}; {_OTHERWISE}")
    except ValueError as error:  # BundleError, or a storage that nothing installed can read
        if settings.bundle is not None:
            raise AuditError(exits.USAGE, str(error)) from error
        return None, Check("bundle", "failed", f"{error}; {_OTHERWISE}")
    if bundle.digest != record.parts["bundle"]:
        said = f"another one: {bundle.digest[:12]}, the run was scored with {record.parts['bundle'][:12]}"
        return None, Check("bundle", "failed", f"{said}; nothing was rescored", (uri,))
    return bundle, Check("bundle", "ok", f"digest {bundle.digest[:12]}")
