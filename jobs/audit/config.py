"""What an audit is asked to do: one frozen object, checked at the door."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from anomaly_core.forms import BackboneForm
from jobs.access import AllowList
from jobs.audit.grace import SUBMITTED
from jobs.manifest.sources import SOURCE_FORMATS, SourceOptions
from jobs.manifest.times import LAST_RUN, parse_since
from jobs.uris import normal, scheme_of
from manifests.build import PathPattern
from manifests.filters import parse_sample
from manifests.readers import ReadOptions
from manifests.secrets import REFUSED, without_secrets

# Settings that say which rows there are. Runs of versions that did not have them have none, and neither has a default.
_ROWS = ("also", "map", "base", "pattern", "inventory_date", "where", "sample", "since")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class BudgetError(ValueError):
    """An error budget that cannot be read."""


class ErrorBudget(BaseModel):
    """How many rows may fail: a share of the manifest (such as 0.01), or a count."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    share: float | None = Field(default=None, ge=0, le=1)
    count: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_of_them(self) -> ErrorBudget:
        if (self.share is None) == (self.count is None):
            raise ValueError("give a share or a count")
        return self

    @classmethod
    def parse(cls, text: str, option: str = "--max-failed") -> ErrorBudget:
        """``1%``, ``0.01`` or ``25``. Raises BudgetError for anything else."""
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
            elif "." in text:
                share = float(text)
            else:
                return cls(count=_not_negative(int(text)))
        except ValueError as error:
            raise BudgetError(f"{option} {text}: write a share such as 1% or 0.01, or a count such as 25") from error
        if not 0 <= share <= 1:
            raise BudgetError(f"{option} {text}: a share is between 0% and 100%")
        return cls(share=share)

    def exceeded(self, failed: int, rows: int) -> bool:
        """Whether that many failed rows are too many."""
        if self.count is not None:
            return failed > self.count
        return failed > (self.share or 0.0) * rows + 1e-9 * rows  # 29 of 100 is 29 %, whatever 0.29 is in binary

    def __str__(self) -> str:
        return f"{self.count}" if self.count is not None else f"{100 * (self.share or 0):g}%"


class AuditConfig(BaseModel):
    """Every setting of a run. ``result_settings`` are those that change a result and so belong to its fingerprint.

    also: further manifests, read with the first one as one. map, base, pattern, inventory_date: how they are read.
    where, sample, since, limit: which of their rows are audited.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str
    also: tuple[str, ...] = ()
    bundle: str
    output: str
    run_date: date | None = None
    name: str = "audit"
    heatmaps: Literal["anomalous", "all", "none"] = "anomalous"
    format: str | None = None
    map: str | None = None
    base: str | None = None
    pattern: str | None = None
    inventory_date: date | None = None
    where: str | None = None
    sample: str | None = None
    since: str | None = None
    limit: int | None = Field(default=None, ge=1)
    shard_rows: int | None = Field(default=None, ge=1, le=4096)
    allow: tuple[str, ...] = ()
    max_failed: ErrorBudget = ErrorBudget(share=0.01)
    max_failed_per_category: ErrorBudget | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    trust_declared: bool = False
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    backbone_weights: str | None = None
    backbone_form: BackboneForm | None = None
    accept_code_change: bool = False
    max_bytes: int = Field(default=64 * 2**20, ge=1)
    max_pixels: int = Field(default=100_000_000, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    fetch_threads: int = Field(default=16, ge=1, le=256)
    decode_timeout: float = Field(default=30.0, gt=0, le=3600)
    stall_timeout: float = Field(default=1800.0, gt=0)
    scorers: int | None = Field(default=None, ge=1)
    extractors: int | None = Field(default=None, ge=1)
    load_cpus: int | None = Field(default=None, ge=1)
    node_timeout: float = Field(default=900.0, ge=0)
    placement: Literal["auto", "pools", "anywhere"] = "auto"
    scoring: Literal["actors", "extractor"] = "actors"
    price_per_node_hour: float | None = Field(default=None, ge=0)
    object_store_memory: int | None = Field(default=None, ge=256 * 2**20)

    @field_validator("manifest", "bundle", "output")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty")
        _without_credentials(value)
        return normal(value)

    @field_validator("also")
    @classmethod
    def _one_spelling_of_all(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cls._one_spelling(value) for value in values)

    @field_validator("format")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and value not in SOURCE_FORMATS:
            raise ValueError(f"must be one of {', '.join(SOURCE_FORMATS)}")
        return value

    @field_validator("map", "base", "pattern", "where", "sample", "since")
    @classmethod
    def _parses(cls, value: str | None, info: ValidationInfo) -> str | None:
        checks: dict[str, Callable[[str], object]] = {
            "map": ReadOptions.parse_map,
            "base": lambda text: ReadOptions(base=text),
            "pattern": PathPattern,
            "sample": parse_sample,
            "since": parse_since,
        }
        if value is not None and info.field_name in checks:
            checks[info.field_name](value)
        return value

    @field_validator("output", mode="before")
    @classmethod
    def _that_stays(cls, value: str) -> str:
        if SUBMITTED in os.environ and "://" not in value and not os.path.isabs(value):
            raise ValueError(
                "a submitted job stands in a folder that Ray removes; give an absolute path on storage that every node "
                "sees, or an s3:// URI"
            )
        return value

    @field_validator("allow")
    @classmethod
    def _real_places(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            _without_credentials(prefix)
            if scheme_of(prefix) != "file" and not prefix.partition("://")[2].strip("/"):
                raise ValueError(f"name a bucket or a host: {prefix} alone would allow all there are")
        return prefixes

    @field_validator("run_date", "inventory_date", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return date.fromisoformat(value)
            except ValueError as error:
                raise ValueError("write the date as YYYY-MM-DD") from error
        return value

    @field_validator("name")
    @classmethod
    def _fit_for_a_folder(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("only letters, digits, '_' and '-', at most 64")
        return value

    def result_settings(self) -> dict[str, object]:
        """The settings that change a result, for the fingerprint."""
        names = ("heatmaps", "limit", "allow", "trust_declared", "min_confidence", "max_bytes", "max_pixels")
        told = self.model_dump(mode="json")
        return {name: told[name] for name in names} | {name: told[name] for name in _ROWS if told[name]}

    @property
    def manifests(self) -> tuple[str, ...]:
        """All manifests."""
        return (self.manifest, *self.also)

    @property
    def sources(self) -> SourceOptions:
        """How the manifests are read."""
        columns = ReadOptions.parse_map(self.map) if self.map is not None else {}
        day = self.inventory_date.isoformat() if self.inventory_date is not None else None
        return SourceOptions(self.format, columns, self.base, self.pattern, day, absolute=self.since == LAST_RUN)

    @property
    def allowed(self) -> AllowList:
        """Which objects they may name."""
        return AllowList.of(self.manifest, self.allow, self.also)


def _without_credentials(uri: str) -> None:
    if without_secrets(uri) != uri:
        raise ValueError(REFUSED)


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError("negative")
    return value
