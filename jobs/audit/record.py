"""run.json: what a run is bound to, how far it is, and how it ended."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import PIL
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anomaly_core.preprocess import Preprocessing
from jobs.audit.config import NAME, ErrorBudget
from jobs.audit.exits import USAGE, AuditError
from jobs.listing import names
from jobs.storage import read_bytes, write_bytes
from jobs.uris import join, normal
from manifests.schema import DUPLICATE

State = Literal["running", "interrupted", "failed", "committed"]


class RunFolder:
    """Where the parts of a run lie below the output."""

    def __init__(self, output: str, run_date: str, name: str):
        self.output, self.run_date, self.name = output, run_date, name
        self.run_id = f"{run_date}/{name}"
        self.uri = join(output, "runs", run_date, name)
        self.record = join(self.uri, "run.json")
        self.manifest = join(self.uri, "manifest")
        self.shards = join(self.uri, "shards")
        self.digests = join(self.uri, "digests.parquet")
        self.report, self.report_json = (join(self.uri, name) for name in ("report.html", "report.json"))
        self.verdicts, self.estimate = (join(self.uri, "review", name) for name in ("verdicts.csv", "estimate.json"))
        self.recorded = join(self.uri, "review", "verdicts")
        self.success = join(self.uri, "_SUCCESS")
        self.lock = join(self.uri, "lock.json")
        self.results = join(output, "results", f"run_date={run_date}", f"{name}.parquet")
        self.heatmaps = join(output, "heatmaps", f"run_date={run_date}", name)

    @classmethod
    def at(cls, uri: str) -> RunFolder:
        """The run whose folder is ``<output>/runs/<date>/<name>``. Raises ValueError for any other address."""
        output, _, rest = normal(uri).rpartition("/runs/")
        run_date, _, name = rest.partition("/")
        if not output or not NAME.fullmatch(name) or not re.fullmatch(r"\d{4}-\d\d-\d\d", run_date):
            raise ValueError(f"{uri} is not the folder of a run: give <output>/runs/<date>/<name>")
        return cls(output, run_date, name)

    def parts(self, names: Iterable[str]) -> tuple[str, ...]:
        """URIs of parts of the frozen manifest."""
        return tuple(join(self.manifest, name) for name in names)

    def earlier(self, version: int) -> str:
        """Where an earlier version of the results is kept, from 1."""
        return join(self.uri, "versions", f"{version:04d}.parquet")

    def queue(self, version: int) -> str:
        """Where the review queue of a version of the results is. Each has its own: people write into it."""
        return join(self.uri, "review", f"queue-{version:04d}.csv")

    def sample(self, version: int) -> str:
        """Where the queue is kept whose random sample the estimate of a version of the results is made from."""
        return join(self.uri, "review", f"sample-{version:04d}.csv")

    def retry(self, version: int) -> RunFolder:
        """The same run with the places for what a retry works on; 2 is the first, whatever version it made."""
        base = join(self.uri, "retries", f"{version:04d}")
        folder = RunFolder(self.output, self.run_date, self.name)
        folder.record, folder.manifest, folder.shards = (join(base, n) for n in ("retry.json", "manifest", "shards"))
        return folder


class FileDigest(BaseModel):
    """A file as it was written: size in bytes, SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """Of a file on this machine. Raises FileNotFoundError."""
        with open(path, "rb") as file:
            return cls(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class Published(BaseModel):
    """What the last publication of a run wrote; the next one replaces it.

    table: the published table. digests: ``digests.parquet`` in the run's folder, which lists the shard files with size
    and SHA-256; in run.json that list would grow with the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: FileDigest
    digests: FileDigest


class Unfinished(BaseModel):
    """A next version of the results that is being published; in the record of a run at rest, one whose command ended
    before it was. Until the same command has finished it, table and pictures may be the one version's or the other's.

    command: that makes it. rule: as rethreshold was given it. thresholds: that pictures may be coloured with by now,
    of each rethreshold since the last version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Literal["retry-failed", "rethreshold"]
    rule: str | None = None
    thresholds: list[dict[str, float]] = Field(default_factory=list)

    def told(self, run: str) -> str:
        """What a person should do about it. run: URI of the run's folder."""
        rule = "" if self.rule is None else f" --threshold {self.rule}"
        without = "" if self.rule is None else " (and --no-pictures, if its images cannot be read)"
        return (
            f"{self.command} was begun and has not ended, so the published results may be of the next version: "
            f"finish it with line-audit {self.command} --run {run}{rule}{without}"
        )


class RunRecord(BaseModel):
    """The content of run.json. parts: what the fingerprint is made of. frozen: the frozen manifest's shard plan.

    self_test: of the last start that scored something; empty if the bundle has no reference images.
    retries: of each retry that was committed, its frozen rows and what became of them. rethresholds: of each, the
    thresholds that the results were decided with from then on. Each of both made the next version of the results.
    cpu: of the machine that began the run. published: None until it is committed, and in runs of older versions.
    unfinished: written before anything of a next version is, and gone with the record of that version.
    max_failed, max_failed_per_category: the error budgets that the exit code of a committed run holds to, which a retry
    takes over; the first is None until then, and in runs of older versions.
    preprocessing: of the bundle, so that maps can be laid over images without it; None in runs of older versions.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    run_id: str
    state: State = "running"
    manifest: str
    source_sha256: str
    bundle: str
    device: str
    fingerprint: str
    parts: dict[str, Any]
    frozen: dict[str, Any]
    results: str
    created_at: str
    finished_at: str | None = None
    starts: int = 0
    code_changes: list[dict[str, Any]] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    counts: dict[str, Any] = Field(default_factory=dict)
    self_test: dict[str, Any] = Field(default_factory=dict)
    timings: dict[str, Any] = Field(default_factory=dict)
    retries: list[dict[str, Any]] = Field(default_factory=list)
    rethresholds: list[dict[str, Any]] = Field(default_factory=list)
    exit_code: int | None = None
    exit_reason: str | None = None
    cpu: str | None = None
    published: Published | None = None
    unfinished: Unfinished | None = None
    max_failed: ErrorBudget | None = None
    max_failed_per_category: ErrorBudget | None = None
    preprocessing: Preprocessing | None = None

    @property
    def version(self) -> int:
        """The version of the published results, from 1."""
        return 1 + len(self.retries) + len(self.rethresholds)

    @property
    def budgeted(self) -> int:
        """Rows that are in the error budget: all but duplicates."""
        duplicates: int = self.counts["failed_by_code"].get(f"manifest/{DUPLICATE}", 0)
        return int(self.counts["rows"]) - duplicates

    @property
    def budgeted_by_category(self) -> dict[str, int]:
        """The same by category. Older versions counted duplicates among them."""
        counts: dict[str, int] = self.counts.get("budgeted_by_category", self.counts["rows_by_category"])
        return counts

    def save(self, folder: RunFolder) -> None:
        """Write run.json."""
        write_bytes(folder.record, (self.model_dump_json(indent=2) + "\n").encode())


def run_dates(output: str) -> list[str]:
    """The dates that have a folder of runs, ascending. Their runs need not have a record."""
    return [name for name in names(join(output, "runs")) if _is_date(name)]


def read_record(folder: RunFolder) -> RunRecord | None:
    """The run's record, or None if there is no such run. Raises AuditError if it cannot be read."""
    try:
        data = read_bytes(folder.record)
    except FileNotFoundError:
        return None
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise AuditError(
            USAGE,
            f"{folder.record} is not a run record of this version ({where}: {first['msg']}): use the version that "
            "wrote it, or restore the file",
        ) from error


def shard_name(shard: int) -> str:
    """The file of a shard: it depends on the shard only, so a retry overwrites its own file."""
    return f"shard-{shard:06d}.parquet"


def fingerprint(parts: dict[str, Any]) -> str:
    """SHA-256 over everything that changes a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def code_version() -> dict[str, str]:
    """The code that makes the results: digest of our sources, and versions of the libraries that touch pixels."""
    import torch  # here: most commands read records and need no torch, which takes seconds to import

    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("anomaly_core", "manifests", "jobs"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return {
        "source": digest.hexdigest(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "torch": str(torch.__version__),
        "torchvision": metadata.version("torchvision"),
        "pillow": PIL.__version__,
        "imagecodecs": metadata.version("imagecodecs"),
        "simplejpeg": metadata.version("simplejpeg"),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
