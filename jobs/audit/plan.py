"""Which run this is: a new one, whose manifest is frozen now, or one that was begun and goes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from anomaly_core.bundle import Bundle
from jobs.access import NotAllowed
from jobs.audit.carry import check_carried
from jobs.audit.config import AuditConfig
from jobs.audit.declared import undeclared
from jobs.audit.exits import SELF_TEST, USAGE, AuditError, NothingNew
from jobs.audit.extract import DECIDED
from jobs.audit.load import LOADED
from jobs.audit.record import RunFolder, RunRecord, code_version, fingerprint, now, read_record, run_dates
from jobs.audit.results import RESERVED
from jobs.audit.since import resolve_since
from jobs.listing import listing
from jobs.machine import cpu_name
from jobs.manifest.left_out import told
from jobs.manifest.sources import Source, digest_of, freeze_sources
from jobs.storage import exists, scratch, upload
from jobs.uris import join
from manifests.filters import Filters, parse_sample
from manifests.freeze import FrozenManifest, read_shard
from manifests.schema import ManifestError, NothingLeft

# Names that the stages use between them, and the views of line-audit sql; a manifest must not bring its own.
_INTERNAL = frozenset(f.name for f in (*LOADED, *DECIDED)) | {"problem_code", "problem_message", "line_audit_file"}
TAKEN = RESERVED | _INTERNAL  # what no further column of a manifest may be called


@dataclass(frozen=True)
class Plan:
    """A run ready to be worked on. missing: the shards that have no file yet."""

    folder: RunFolder
    record: RunRecord
    frozen: FrozenManifest
    missing: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    @property
    def rows_to_do(self) -> int:
        """Rows of the missing shards; the others are there from an earlier start."""
        missing = set(self.missing)
        return sum(shard.rows for shard in self.frozen.shards if shard.index in missing)


def choose_folder(config: AuditConfig, bundle: Bundle) -> RunFolder:
    """The run's folder. Without a date, an unfinished run of the same manifest and bundle comes before a new one."""
    if config.run_date is not None:
        return RunFolder(config.output, config.run_date.isoformat(), config.name)
    for run_date in sorted(run_dates(config.output), reverse=True):
        folder = RunFolder(config.output, run_date, config.name)
        record = read_record(folder)
        if record is None or exists(folder.success):
            continue
        then = (record.manifest, *record.parts["settings"].get("also", ()))
        if then == config.manifests and record.parts["bundle"] == bundle.digest:
            return folder
    return RunFolder(config.output, date.today().isoformat(), config.name)


def bound_record(folder: RunFolder) -> RunRecord | None:
    """The record of a run that goes on, or None for one that begins now.

    A run whose bundle failed the self-test before anything was scored is bound to nothing yet: what repairs it, another
    library or another bundle, must not be refused as a change.
    """
    record = read_record(folder)
    if record is not None and record.exit_code == SELF_TEST and not any(listing(folder.shards)):
        return None
    return record


def parts_of(config: AuditConfig, bundle: Bundle, precision: str, frozen: FrozenManifest) -> dict[str, Any]:
    """What the fingerprint of a run is made of."""
    return {
        "manifest": frozen.digest,
        "bundle": bundle.digest,
        "precision": precision,
        "settings": config.result_settings(),
        "code": code_version(),
    }


def check_same(
    config: AuditConfig, record: RunRecord, parts: dict[str, Any], *, finished: bool
) -> list[dict[str, Any]]:
    """Hold what is asked now against what the run is bound to.

    Returns the code changes to record. Raises AuditError saying what differs. Of a finished run nothing is computed
    any more, so other code does not matter.
    """
    differs = [
        f"{key}: {record.parts[key]} then, {parts[key]} now"
        for key in ("bundle", "precision")
        if record.parts[key] != parts[key]
    ]
    then, asked = record.parts["settings"], parts["settings"]
    keys = [*asked, *(key for key in then if key not in asked)]
    differs += [f"{key}: {then.get(key)} then, {asked.get(key)} now" for key in keys if then.get(key) != asked.get(key)]
    if record.manifest != config.manifest:  # further ones are among the settings
        differs.insert(0, f"manifest: {record.manifest} then, {config.manifest} now")
    if differs:
        raise AuditError(
            USAGE,
            f"run {record.run_id} exists and is bound to what it began with; {'; '.join(differs)}. "
            "Repeat the command as it was, or choose another --name or --run-date",
        )
    if record.parts["code"] == parts["code"] or finished:
        return []
    if record.code_changes and record.code_changes[-1]["to"] == parts["code"]:
        return []
    if not config.accept_code_change:
        changed = [k for k in parts["code"] if record.parts["code"].get(k) != parts["code"][k]]
        raise AuditError(
            USAGE,
            f"run {record.run_id} was begun with another version of the code ({', '.join(changed)}): finish it with "
            "that version, or accept that its rows come from two with --accept-code-change",
        )
    return [{"at": now(), "to": parts["code"]}]


def new_run(
    config: AuditConfig, bundle: Bundle, folder: RunFolder, precision: str, device: str
) -> tuple[RunRecord, FrozenManifest]:
    """Freeze the manifest and write the record; until the record is there, there is no such run.

    Raises AuditError naming what is wrong with the manifest.
    """
    with scratch() as local:
        frozen = freeze_manifest(config, local)
        doubts = undeclared(bundle, frozen, local / "frozen")
        upload_parts(local / "frozen", folder)
    parts = parts_of(config, bundle, precision, frozen)
    record = RunRecord(
        run_id=folder.run_id,
        manifest=config.manifest,
        source_sha256=frozen.source_sha256,
        bundle=config.bundle,
        device=device,
        fingerprint=fingerprint(parts),
        parts=parts,
        frozen=frozen.to_dict(),
        results=folder.results,
        created_at=now(),
        warnings=[*bundle.warnings, *doubts],
        cpu=cpu_name(),
        preprocessing=bundle.preprocessing,
    )
    record.save(folder)
    return record, frozen


def upload_parts(frozen: Path, folder: RunFolder) -> None:
    """The parts of a frozen manifest to where the run, or its retry, reads them."""
    for part in sorted(frozen.iterdir()):
        upload(part, join(folder.manifest, part.name))


def freeze_manifest(config: AuditConfig, local: Path) -> FrozenManifest:
    """Open the manifests and freeze them into ``local/frozen``. Raises AuditError."""
    name = ", ".join(config.manifests)
    try:
        frozen = freeze_sources(
            config.manifests,
            config.sources,
            lambda source: _filters(config, source, local),
            local,
            shard_rows=config.shard_rows,
            reserved=TAKEN,
        )
    except NothingLeft as error:
        if error.left_out.get("since"):
            raise NothingNew(f"nothing is new, so nothing is to do; left out: {told(error.left_out)}") from error
        raise AuditError(USAGE, str(error)) from error
    except ManifestError as error:
        raise AuditError(USAGE, str(error)) from error
    check_carried(name, frozen, local / "frozen", local)
    _check_allowed(config, local / "frozen" / frozen.shards[0].part)
    return frozen


def _filters(config: AuditConfig, source: Source, local: Path) -> Filters:
    since = resolve_since(config, source, local)
    sample = None if config.sample is None else parse_sample(config.sample)
    return Filters(where=config.where, since=since, sample=sample, limit=config.limit)


def source_warning(config: AuditConfig, record: RunRecord) -> list[str]:
    """A warning if the manifest was changed since it was frozen; the frozen one is used all the same."""
    with scratch() as local:
        try:
            digest = digest_of(config.manifests, config.sources, local)
        except FileNotFoundError:
            return ["the manifest is gone; the run goes on with the frozen one"]
    if digest is None or digest == record.source_sha256:
        return []
    return ["the manifest was changed since this run began; the run goes on with the frozen one"]


def _check_allowed(config: AuditConfig, part: Path) -> None:
    # A manifest that lies apart from its images would commit a night of refused rows, so the first shard is tried now.
    allowed = config.allowed
    refused = None
    for uri in read_shard(part, 0)["uri"].to_pylist():
        if uri is None:
            continue
        try:
            allowed.resolve(uri)
            return
        except NotAllowed as error:
            refused = f"{uri}: {error}"
    if refused is not None:
        raise AuditError(
            USAGE, f"{', '.join(config.manifests)}: no image of the first shard may be read, the last: {refused}"
        )
