"""The published table against the frozen manifest, the documented schema and the pictures that it names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.commit import count_rows
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.render import wanted
from jobs.audit.results import SCHEMA_VERSION, VERSION_KEY, VERSIONS, file_metadata, result_schema
from jobs.listing import names_below
from jobs.uris import join
from jobs.verify.check import EXAMPLES, Check, named
from manifests.freeze import FrozenManifest
from manifests.schema import printable

NAMES_AT_ONCE = 50_000

# Every image_id as often as in the manifest: a duplicate there has the name of its first row, and a row of its own.
_OFTEN = """
    WITH planned AS (SELECT image_id, any_value(uri) AS uri, count(*) AS n FROM manifest GROUP BY image_id),
         found AS (SELECT image_id, any_value(uri) AS uri, count(*) AS n FROM rows GROUP BY image_id)
    SELECT coalesce(planned.uri, found.uri, image_id) AS uri, coalesce(planned.n, 0) AS planned,
           coalesce(found.n, 0) AS found
    FROM planned FULL JOIN found USING (image_id) WHERE planned.n IS DISTINCT FROM found.n
"""
_PICTURES = """
    SELECT category || '/' || image_id || '.png' AS name, heatmap_path AS path
    FROM rows WHERE heatmap_path IS NOT NULL
    UNION ALL
    SELECT category || '/' || image_id || '_overlay.png', overlay_path FROM rows WHERE overlay_path IS NOT NULL
"""


def open_views(connection: duckdb.DuckDBPyConnection, table: Path, parts: list[Path]) -> None:
    """Views ``rows`` of the published table and ``manifest`` of the frozen parts. Raises duckdb.Error."""
    connection.read_parquet(str(table), hive_partitioning=False).create_view("rows")
    connection.read_parquet([str(part) for part in parts], hive_partitioning=False).create_view("manifest")


def schema(table: Path, frozen: FrozenManifest) -> Check:
    """Names, order, types and nullability of the columns against results.py, in the table's version of the schema."""
    found, planned = pq.read_schema(table), result_schema(frozen.extras, _version(_footer(table)))
    if found.names != planned.names:
        odd = sorted(set(found.names) ^ set(planned.names))
        said = f"{', '.join(map(repr, odd[:EXAMPLES]))} too many or missing" if odd else "in another order"
        return Check("schema", "failed", f"columns {said}")
    wrong = [
        f"{field.name}: {_type(found.field(field.name))}, {_type(field)} was promised"
        for field in planned
        if _type(found.field(field.name)) != _type(field)
    ]
    if wrong:
        return Check("schema", "failed", f"{named(len(wrong), 'column')} of another type", tuple(wrong[:EXAMPLES]))
    return Check("schema", "ok", f"{len(planned)} columns as documented")


def footer(table: Path, record: RunRecord) -> Check:
    """What the table says of itself: run, fingerprint, bundle, schema version, which may be an earlier one."""
    found = _footer(table)
    planned = file_metadata(record.run_id, record.fingerprint, record.parts["bundle"])
    planned[VERSION_KEY] = _version(found)
    wrong = [f"{key}: {found.get(key)!r}, not {value!r}" for key, value in planned.items() if found.get(key) != value]
    if wrong:
        return Check("footer", "failed", "not that of this run", tuple(wrong[:EXAMPLES]))
    return Check("footer", "ok", "names this run, fingerprint, bundle and schema version")


def _footer(table: Path) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (pq.read_metadata(table).metadata or {}).items()}


def _version(footer: dict[str, str]) -> str:
    """The version of the schema that a table must be of: its own, if that is one that there was."""
    found = footer.get(VERSION_KEY)
    return found if found in VERSIONS else SCHEMA_VERSION


def rows(connection: duckdb.DuckDBPyConnection, record: RunRecord, frozen: FrozenManifest) -> Check:
    """Every manifest row exactly once, and all of this run."""
    connection.execute(f"CREATE TEMP TABLE often AS {_OFTEN}")
    lost, more = _one(
        connection,
        "SELECT coalesce(sum(greatest(planned - found, 0)), 0), coalesce(sum(greatest(found - planned, 0)), 0) "
        "FROM often",
    )
    foreign, count = _one(
        connection,
        "SELECT count(*) FILTER (run_id IS DISTINCT FROM ? OR bundle_digest IS DISTINCT FROM ?), count(*) FROM rows",
        [record.run_id, record.parts["bundle"]],
    )
    (planned,) = _one(connection, "SELECT count(*) FROM manifest")
    problems = [f"{named(lost, 'row')} lost"] if lost else []
    problems += [f"{named(more, 'row')} too many"] if more else []
    problems += [f"{named(foreign, 'row')} of another run or bundle"] if foreign else []
    if planned != frozen.rows:
        problems.append(f"{planned:,} rows in the frozen manifest, {frozen.rows:,} in run.json")
    if problems:
        found = connection.execute(f"SELECT * FROM often ORDER BY uri LIMIT {EXAMPLES}").fetchall()
        examples = tuple(f"{printable(uri)}: {there} times, not {wanted}" for uri, wanted, there in found)
        return Check("rows", "failed", ", ".join(problems), examples)
    return Check("rows", "ok", f"{count:,} rows, every manifest row once")


# That records of older versions lack.
LATER_COUNTS = ("budgeted_by_category",)


def counts(connection: duckdb.DuckDBPyConnection, record: RunRecord) -> Check:
    """The counts of run.json against those of the table."""
    wrong = [
        f"{key}: {record.counts.get(key)} in run.json, {found} in the table"
        for key, found in count_rows(connection).items()
        if record.counts.get(key) != found and (key in record.counts or key not in LATER_COUNTS)
    ]
    if wrong:
        return Check(
            "counts", "failed", f"{named(len(wrong), 'count')} of run.json are others", tuple(wrong[:EXAMPLES])
        )
    return Check("counts", "ok", "those of run.json")


def pictures(connection: duckdb.DuckDBPyConnection, folder: RunFolder, which: str) -> Check:
    """A file for every picture that a row names, and a picture for every row that was promised one."""
    _list_pictures(connection, folder)
    tail = f"/heatmaps/run_date={folder.run_date}/{folder.name}/"  # not the whole path: a run may have been copied
    queries = {
        "not there": f"SELECT name FROM ({_PICTURES}) ANTI JOIN pictures USING (name)",
        "of another name": f"SELECT path FROM ({_PICTURES}) WHERE ends_with(path, '{tail}' || name) IS NOT TRUE",
        "promised and not named": _promised(connection, which),
    }
    problems, examples = [], []
    for what, sql in queries.items():
        (count,) = _one(connection, f"SELECT count(*) FROM ({sql})")
        if count:
            problems.append(f"{named(count, 'picture')} {what}")
            found = connection.execute(f"{sql} ORDER BY 1 LIMIT {EXAMPLES}").fetchall()
            examples += [printable(path if what != "not there" else join(folder.heatmaps, path)) for (path,) in found]
    if problems:
        return Check("pictures", "failed", ", ".join(problems), tuple(examples[:EXAMPLES]))
    (count,) = _one(connection, f"SELECT count(*) FROM ({_PICTURES})")
    return Check("pictures", "ok", f"{named(count, 'picture')}, all there (--heatmaps {which})")


def _list_pictures(connection: duckdb.DuckDBPyConnection, folder: RunFolder) -> None:
    batches = pa.RecordBatchReader.from_batches(pa.schema([pa.field("name", pa.string())]), _names(folder.heatmaps))
    connection.register("listed", batches)
    connection.execute("CREATE TEMP TABLE pictures AS SELECT * FROM listed")
    connection.unregister("listed")


def _names(uri: str) -> Iterator[pa.RecordBatch]:
    remaining = names_below(uri)
    while lot := list(islice(remaining, NAMES_AT_ONCE)):
        yield pa.RecordBatch.from_pydict({"name": lot})


def _promised(connection: duckdb.DuckDBPyConnection, which: str) -> str:
    """A query for rows without the picture that the run's setting promises; the rule itself is the writer's."""
    kinds = connection.execute("SELECT DISTINCT decision, score IS NOT NULL FROM rows").fetchall()
    owed = [
        f"(decision = '{decision}' AND (score IS NOT NULL) = {scored})"
        for decision, scored in kinds
        if decision in ("normal", "anomalous", "review", "failed")
        and wanted({"error_map": () if scored else None, "decision": decision}, which)
    ]
    return (
        "SELECT coalesce(uri, image_id) FROM rows WHERE (heatmap_path IS NULL OR overlay_path IS NULL) "
        f"AND render_error IS NULL AND ({' OR '.join(owed) or 'false'})"
    )


def _type(field: pa.Field) -> str:
    return str(field.type) if field.nullable else f"{field.type} not null"


def _one(connection: duckdb.DuckDBPyConnection, sql: str, values: list[Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(sql, values).fetchone()
    assert row is not None
    return tuple(row)
