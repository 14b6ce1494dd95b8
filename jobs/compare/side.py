"""One of the two that are compared: a version of the results of a committed run, and its rows in DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit import exits
from jobs.audit.commit import BATCH_ROWS, fill
from jobs.audit.committed import committed, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.results import COLUMNS, DAMAGE, DUPLICATE_SQL, SCHEMA_VERSION, VERSION_KEY, VERSIONS
from jobs.storage import reading

DECISIONS = ("normal", "anomalous", "review", "failed")
# All of them are in every version of the schema.
_READ = (
    "image_id", "uri", "line", "camera", "declared_category", "status", "error_stage", "error_code", "category",
    "score", "threshold", "margin", "decision", "overlay_path",
)  # fmt: skip
_SCHEMA = pa.schema([next(column.field for column in COLUMNS if column.name == name) for name in _READ])


@dataclass(frozen=True)
class Side:
    """A version of a run's results. table: URI of its file; earlier: whether it is not the published one."""

    folder: RunFolder
    record: RunRecord
    version: int

    @property
    def earlier(self) -> bool:
        """Whether a later version is published."""
        return self.version < self.record.version

    @property
    def table(self) -> str:
        """URI of the table."""
        return self.folder.earlier(self.version) if self.earlier else self.folder.results


@dataclass(frozen=True)
class Loaded:
    """What is in a side's table. rows: without duplicates. decisions: of them, all four. thresholds: by category, in
    ascending order where a category has several."""

    schema_version: str
    rows: int
    duplicates: int
    decisions: dict[str, int]
    thresholds: dict[str, list[float]]


def open_side(run: str, version: int | None = None) -> Side:
    """The side that somebody names: folder of a committed run, and version of its results (None: the published one).

    Raises AuditError if there is none, StorageAccessError.
    """
    folder = run_folder(run)
    record = committed(folder)
    if version is not None and not 1 <= version <= record.version:
        had = "only version 1" if record.version == 1 else f"versions 1 to {record.version}"
        raise AuditError(exits.USAGE, f"{folder.uri}: there is no version {version} of the results; it has {had}")
    return Side(folder, record, version or record.version)


def load(connection: duckdb.DuckDBPyConnection, name: str, side: Side) -> Loaded:
    """Read a side's table into the database: view ``name`` has its rows without duplicates, and column ``grp`` the
    category that they count in, empty for none: the routed one, else the declared one.

    Raises AuditError if the table is not there or is damaged, StorageAccessError.
    """
    try:
        with reading(side.table) as opened, pq.ParquetFile(opened) as file:
            schema_version = _version(side, file.metadata.metadata or {})
            fill(connection, f"all_{name}", _batches(file))
    except FileNotFoundError as error:
        raise AuditError(exits.FAILED, f"{side.table}: there is no such table; restore it from a copy") from error
    except MemoryError:  # Arrow's is one of DAMAGE too, and says nothing of the file
        raise
    except DAMAGE as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise AuditError(
            exits.FAILED, f"{side.table}: the table cannot be read ({first}); line-audit verify tells what is damaged"
        ) from error
    # A duplicate has the image_id of its first row, and is no image: it would multiply joins and dilute rates.
    connection.execute(
        f"CREATE VIEW {name} AS SELECT *, coalesce(category, declared_category, '') AS grp FROM all_{name} "
        f"WHERE NOT {DUPLICATE_SQL}"
    )
    _check_unique(connection, name, side)
    counted = dict(connection.execute(f"SELECT decision, count(*) FROM {name} GROUP BY 1").fetchall())
    thresholds = connection.execute(
        f"SELECT category, list(DISTINCT threshold ORDER BY threshold) FROM {name} "
        "WHERE category IS NOT NULL AND threshold IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    (every,) = connection.execute(f"SELECT count(*) FROM all_{name}").fetchall()[0]
    rows = sum(counted.values())
    return Loaded(
        schema_version=schema_version,
        rows=rows,
        duplicates=every - rows,
        decisions={decision: counted.get(decision, 0) for decision in DECISIONS},
        thresholds={category: list(values) for category, values in thresholds},
    )


def _version(side: Side, footer: dict[bytes, bytes]) -> str:
    version = footer.get(VERSION_KEY.encode(), b"").decode()
    if version not in VERSIONS:
        raise AuditError(
            exits.FAILED,
            f"{side.table}: schema version {version or 'none'} is not one that this code knows (1 to {SCHEMA_VERSION})",
        )
    return version


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([], schema=_SCHEMA)  # all that there is of a table without rows
    for batch in file.iter_batches(BATCH_ROWS, columns=list(_READ)):
        yield batch.select(list(_READ)).cast(_SCHEMA)


def _check_unique(connection: duckdb.DuckDBPyConnection, name: str, side: Side) -> None:
    twice = connection.execute(f"SELECT image_id FROM {name} GROUP BY 1 HAVING count(*) > 1 LIMIT 1").fetchone()
    if twice is not None:
        raise AuditError(
            exits.FAILED,
            f"{side.table}: image {twice[0]} has more than one row; line-audit verify tells what is damaged",
        )
