"""run.json: what a run is bound to, how far it is, and how it ended."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import PIL
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.audit.exits import FAILED, AuditError
from jobs.storage import join, read_bytes, write_bytes

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
        self.success = join(self.uri, "_SUCCESS")
        self.lock = join(self.uri, "lock.json")
        self.results = join(output, "results", f"run_date={run_date}", f"{name}.parquet")
        self.heatmaps = join(output, "heatmaps", f"run_date={run_date}", name)


class RunRecord(BaseModel):
    """The content of run.json. parts: what the fingerprint is made of. frozen: the frozen manifest's shard plan.

    self_test: of the last start that scored something; empty if the bundle has no reference images.
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
    exit_code: int | None = None
    exit_reason: str | None = None

    def save(self, folder: RunFolder) -> None:
        """Write run.json."""
        write_bytes(folder.record, (self.model_dump_json(indent=2) + "\n").encode())


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
            FAILED, f"{folder.record} is not a run record of this version ({where}: {first['msg']})"
        ) from error


def fingerprint(parts: dict[str, Any]) -> str:
    """SHA-256 over everything that changes a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def code_version() -> dict[str, str]:
    """The code that makes the results: digest of our sources, and versions of the libraries that touch pixels."""
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
