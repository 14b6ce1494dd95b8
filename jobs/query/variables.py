"""What the views of a session read: its variables, from the committed runs of an output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa

from jobs.audit import exits
from jobs.audit.committed import AT_ONCE, committed_runs
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.results import result_schema
from jobs.listing import names, names_below
from jobs.uris import below, join

# What a session calls the output, wherever that is: names in its path are no patterns and no partitions then.
FOLDER = "output"
VERDICTS = "verdicts.csv"
_QUEUE = re.compile(r"queue-\d{4,}\.csv")
_TOGETHER = """
    SELECT column_name, column_type
    FROM (
        DESCRIBE FROM read_parquet($tables, union_by_name = true, hive_partitioning = false)
        UNION ALL BY NAME FROM standard
    )
    WHERE lower(column_name) <> 'run_date'
"""
_ALONE = "SELECT lower(column_name), column_type FROM (DESCRIBE FROM read_parquet($table, hive_partitioning = false))"
_SCHEMA = """
    SET VARIABLE audit_schema = (
        SELECT map_from_entries(list((name, {name: name, type: kind, default_value: NULL})))
        FROM (SELECT unnest($names) AS name, unnest($kinds) AS kind)
    )
"""
Run = tuple[RunFolder, RunRecord]


def runs_to_query(output: str) -> tuple[list[Run], list[str]]:
    """The committed runs whose tables are there, and what a reader must know of the others and of them.

    Raises AuditError if there is none, or a record cannot be read; StorageAccessError.
    """
    runs = committed_runs(output)
    if not runs:
        raise none_committed(output)
    results = join(output, "results")
    published = set(names_below(results))
    there = [run for run in runs if below(results, run[0].results) in published]
    if not there:
        raise AuditError(exits.USAGE, f"{output}: {len(runs)} runs are committed, but none of their tables is there")
    return there, list(_doubts(runs, there))


def none_committed(output: str) -> AuditError:
    """The error of an output without a committed run."""
    return AuditError(exits.USAGE, f"{output}: there is no committed run; give the --output of an audit that has ended")


def set_tables(connection: duckdb.DuckDBPyConnection, output: str, runs: Sequence[Run]) -> None:
    """Set what views.sql reads, without the files of reviews. Opens one table for each set of further columns.

    Raises duckdb.Error.
    """
    _set(connection, "audit_tables", [_named(output, folder.results) for folder, _ in runs])
    _set(connection, "audit_records", [record.model_dump_json() for _, record in runs])
    _set(connection, "audit_queues", [])
    _set(connection, "audit_verdicts", [])
    # Of manifests with the same further columns, the newest table.
    alike = {str(record.frozen.get("extras")): _named(output, folder.results) for folder, record in runs}
    columns = _columns(connection, list(reversed(alike.values())))
    connection.execute(_SCHEMA, {"names": list(columns), "kinds": list(columns.values())})


def _columns(connection: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> dict[str, str]:
    """Columns and types of all tables together, and of our own, which tables of older versions do not have. What has
    types that do not go together is text."""
    connection.register("standard", result_schema(pa.schema([])).empty_table())
    together = dict(connection.execute(_TOGETHER, {"tables": tables}).fetchall())
    connection.unregister("standard")
    names = {name.lower(): name for name in together}
    for table in tables if len(tables) > 1 else ():
        for lower, kind in connection.execute(_ALONE, {"table": [table]}).fetchall():
            name = names.get(lower)
            if name is not None and not _goes_into(connection, kind, together[name]):
                together[name] = "VARCHAR"
    return together


def _goes_into(connection: duckdb.DuckDBPyConnection, kind: str, together: str) -> bool:
    """Whether every value of a type can be read as one of the type that DuckDB finds for it and others."""
    if kind == together or (kind.startswith("STRUCT(") and together.startswith("STRUCT(")):
        return True
    (goes,) = connection.execute(f"SELECT can_cast_implicitly(NULL::{kind}, NULL::{together})").fetchone() or (False,)
    return bool(goes)


def set_reviews(connection: duckdb.DuckDBPyConnection, output: str, runs: Sequence[Run]) -> None:
    """Set which queues and verdicts there are, after the views: making review_queue would open all of them."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        files = [file for found in pool.map(lambda run: _review_files(output, run[0]), runs) for file in found]
    _set(connection, "audit_queues", [file for file in files if not file.endswith(VERDICTS)])
    _set(connection, "audit_verdicts", [file for file in files if file.endswith(VERDICTS)])


def _set(connection: duckdb.DuckDBPyConnection, name: str, values: list[str]) -> None:
    connection.execute(f"SET VARIABLE {name} = ?::VARCHAR[]", [values])


def _review_files(output: str, folder: RunFolder) -> list[str]:
    review = join(folder.uri, "review")
    wanted = [name for name in names(review) if name == VERDICTS or _QUEUE.fullmatch(name)]
    return [_named(output, join(review, name)) for name in wanted]


def _named(output: str, uri: str) -> str:
    return f"{FOLDER}://{below(output, uri)}"


def _doubts(runs: Sequence[Run], there: Sequence[Run]) -> Iterator[str]:
    gone = {folder.run_id for folder, _ in runs} - {folder.run_id for folder, _ in there}
    if gone:
        yield f"no view has these committed runs, whose tables are gone: {', '.join(sorted(gone))}"
    yield from (record.unfinished.told(folder.uri) for folder, record in there if record.unfinished is not None)
