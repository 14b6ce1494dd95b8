"""Names of the tables that the commands write."""

from __future__ import annotations

from jobs.uris import normal
from manifests.schema import ManifestError


def parquet_name(output: str) -> str:
    """The URI to write a table to. Raises ManifestError for a name that says another format."""
    if not output.endswith(".parquet"):
        raise ManifestError(f"{output}: a manifest is written as Parquet; give a name that ends in .parquet")
    return normal(output)
