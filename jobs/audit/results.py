"""The result table: every column with its type, unit, nullability and meaning, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = "2"
VERSION_KEY = "line_audit.schema_version"
# What Arrow raises of a Parquet file that is damaged: nearly anything.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)


@dataclass(frozen=True)
class Column:
    """One column of the result table. since: the version of the schema that brought it; then it may be null."""

    name: str
    type: pa.DataType
    nullable: bool
    meaning: str
    since: int = 1

    @property
    def field(self) -> pa.Field:
        """Its Arrow field."""
        return pa.field(self.name, self.type, nullable=self.nullable)


_S, _F, _D, _I, _L = pa.string(), pa.float32(), pa.float64(), pa.int32(), pa.int64()
_T = pa.timestamp("us", tz="UTC")

IMAGE = (
    Column("image_id", _S, False, "stable name of the image: 32 hexadecimal digits from uri and version"),
    Column("uri", _S, True, "where the image lies, as the manifest says"),
    Column("version_id", _S, True, "object version, as the manifest says"),
    Column("etag", _S, True, "ETag, as the manifest says"),
    Column("sha256", _S, True, "SHA-256 of the bytes that were scored"),
    Column("captured_at", _T, True, "time of capture (UTC), as the manifest says"),
    Column("line", _S, True, "production line, as the manifest says"),
    Column("camera", _S, True, "camera, as the manifest says"),
    Column("declared_category", _S, True, "category that the manifest says"),
)
OUTCOME = (
    Column("status", _S, False, "scored or failed"),
    Column("error_stage", _S, True, "where it failed: manifest, fetch, decode or score"),
    Column("error_code", _S, True, "why it failed, one word of a fixed list"),
    Column("error_message", _S, True, "why it failed, for people"),
    Column("attempts", _I, False, "how often the bytes were asked for; 0 if never"),
    Column("width", _I, True, "width in pixels, as displayed"),
    Column("height", _I, True, "height in pixels, as displayed"),
    Column("category", _S, True, "category that chose the autoencoder"),
    Column("category_confidence", _F, True, "softmax probability of the routed category"),
    Column(
        "category_distance",
        _F,
        True,
        "distance from the category's training images, as a multiple of the limit above which the product is unknown; "
        "null if the bundle cannot tell",
        since=2,
    ),
    Column("route_agrees", pa.bool_(), True, "declared and routed category are the same; null if none was declared"),
    Column("score", _D, True, "anomaly score: mean of the 10 highest pixels of the error map"),
    Column("threshold", _D, True, "threshold of the category"),
    Column("margin", _D, True, "score / threshold"),
    Column("p_value", _D, True, "share of unseen normal images that score as high; null if the bundle has none"),
    Column("decision", _S, False, "normal, anomalous, review or failed"),
    Column("decision_reason", _S, True, "what led to the decision, comma-separated words; null for a plain normal"),
    Column("peak_x", _F, True, "column of the highest error, in pixels of the original image"),
    Column("peak_y", _F, True, "row of the highest error, in pixels of the original image"),
    Column("heatmap_path", _S, True, "URI of the heatmap PNG"),
    Column("overlay_path", _S, True, "URI of the PNG with the heatmap laid over the image"),
    Column("render_error", _S, True, "why a picture could not be made; the row is scored all the same"),
    Column("run_id", _S, False, "run: date/name"),
    Column("shard", _I, False, "slice of the manifest that the row was in"),
    Column("bundle_digest", _S, False, "SHA-256 that names the bundle"),
    Column("scored_at", _T, False, "when the row was written (UTC)"),
)
COLUMNS = IMAGE + OUTCOME
# Only in the shard files: the order of the manifest, and the map from which pictures can be made again.
SHARD_ONLY = (
    Column("row", _L, False, "position in the manifest, from 0"),
    Column("error_map", pa.list_(pa.float16(), 28 * 28), True, "error map, 28 x 28, row by row"),
)
# In SQL: a row that failed because another one has its image_id. Never null.
DUPLICATE_SQL = "((error_stage = 'manifest' AND error_code = 'duplicate') IS TRUE)"
# A run that was disturbed and resumed may differ from an undisturbed one in these, and in no other.
VOLATILE = ("scored_at", "attempts", "render_error")
VERSIONS = tuple(str(version) for version in range(1, int(SCHEMA_VERSION) + 1))
RESERVED = frozenset(c.name for c in COLUMNS + SHARD_ONLY)


def result_schema(extras: pa.Schema, version: str = SCHEMA_VERSION) -> pa.Schema:
    """The published table: image columns, the manifest's further columns unchanged, outcome columns.

    version: of the schema; VERSIONS has those that this code knows.
    """
    outcome = (c.field for c in OUTCOME if c.since <= int(version))
    return pa.schema([*(c.field for c in IMAGE), *extras, *outcome])


def shard_schema(extras: pa.Schema) -> pa.Schema:
    """A shard file: the published columns and what only shards hold."""
    return pa.schema([*result_schema(extras), *(c.field for c in SHARD_ONLY)])


def as_current(table: pa.Table) -> pa.Table:
    """Rows of a result file with the columns that its version of the schema did not have yet, as nulls at the end.

    table: with the file's footer as its schema's metadata, as pq.ParquetFile reads it. Columns that its version has and
    the file has not stay missing.
    """
    version = int((table.schema.metadata or {}).get(VERSION_KEY.encode(), SCHEMA_VERSION))
    for column in OUTCOME:
        if version < column.since:
            table = table.append_column(column.field, pa.nulls(len(table), column.type))
    return table


def file_metadata(run_id: str, fingerprint: str, bundle_digest: str, shard: int | None = None) -> dict[str, str]:
    """What the footer of a result file says of itself."""
    metadata = {
        "line_audit.run_id": run_id,
        "line_audit.fingerprint": fingerprint,
        "line_audit.bundle_digest": bundle_digest,
        VERSION_KEY: SCHEMA_VERSION,
    }
    return metadata if shard is None else {**metadata, "line_audit.shard": str(shard)}
