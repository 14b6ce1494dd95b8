"""A stage without its job around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from jobs.audit.render import RenderSettings
from jobs.audit.write import WriteSettings


class Deaf:
    """A registry that hears nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *arguments: Any) -> None:
        return None


def write_settings(
    folder: Path, rows: dict[int, int], pictures: Literal["anomalous", "none"] = "none"
) -> WriteSettings:
    """Of a writer into ``folder``, of shards with so many rows."""
    return WriteSettings(
        folder=str(folder),
        extras=pa.schema([]).serialize().to_pybytes(),
        rows_by_shard=rows,
        run_id="d/n",
        fingerprint="f",
        bundle_digest="b",
        render=RenderSettings(str(folder), pictures),
    )
