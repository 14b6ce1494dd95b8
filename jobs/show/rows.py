"""The rows of a published table that somebody asks for, by the beginning of their image_id or by their uri."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import duckdb

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder
from jobs.audit.results import DUPLICATE_SQL
from jobs.database import results_database, table_name
from jobs.storage import exists
from manifests.schema import printable

# With fewer digits a large table has thousands of such rows.
SHORTEST = 4
_NAME = re.compile(rf"[0-9a-f]{{{SHORTEST},32}}")
_EXAMPLES = 3


@dataclass(frozen=True)
class PublishedRow:
    """What the published table says of an image; the columns are those of jobs/audit/results.py."""

    image_id: str
    uri: str | None
    version_id: str | None
    sha256: str | None
    captured_at: datetime | None
    line: str | None
    camera: str | None
    status: str
    error_stage: str | None
    error_code: str | None
    error_message: str | None
    width: int | None
    height: int | None
    category: str | None
    score: float | None
    threshold: float | None
    margin: float | None
    p_value: float | None
    decision: str
    decision_reason: str | None
    peak_x: float | None
    peak_y: float | None
    shard: int


def find_rows(folder: RunFolder, names: Sequence[str], uris: Sequence[str]) -> list[PublishedRow]:
    """The rows of a committed run, each once, in the order in which they are asked for.

    names: image_ids, or what no other one begins with. uris: as the manifest says; of several versions of an object,
    all. A row that failed as a duplicate is not found: the first one of the same name is.

    Raises AuditError naming what is no image_id, is not there, or is the beginning of several.
    """
    wanted = [_checked(name) for name in names]
    rows = _read(folder, wanted, uris)
    found = [_one(folder, name, [row for row in rows if row.image_id.startswith(name)]) for name in wanted]
    for uri in uris:
        versions = [row for row in rows if row.uri == uri]
        if not versions:
            raise AuditError(
                exits.USAGE,
                f"{printable(uri)}: no row of run {folder.run_id} has this uri; give it as the manifest does",
            )
        found += versions
    return list(dict.fromkeys(found))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name.lower()):
        raise AuditError(
            exits.USAGE,
            f"{printable(name)!r} is no image_id: give its 32 hexadecimal digits, or the first {SHORTEST} or more",
        )
    return name.lower()


def _one(folder: RunFolder, name: str, rows: Sequence[PublishedRow]) -> PublishedRow:
    if not rows:
        raise AuditError(exits.USAGE, f"{name}: no image of run {folder.run_id} has an image_id that begins so")
    if len(rows) > 1:
        examples = ", ".join(sorted(row.image_id for row in rows)[:_EXAMPLES])
        more = ", ..." if len(rows) > _EXAMPLES else ""
        raise AuditError(
            exits.USAGE,
            f"{name}: {len(rows)} images of run {folder.run_id} have an image_id that begins so ({examples}{more}); "
            "give more digits",
        )
    return rows[0]


def _read(folder: RunFolder, names: Sequence[str], uris: Iterable[str]) -> list[PublishedRow]:
    if not exists(folder.results):
        raise AuditError(exits.FAILED, f"{folder.results}: the published table of a committed run is gone")
    columns = ", ".join(field.name for field in fields(PublishedRow))
    conditions = " OR ".join(["starts_with(image_id, ?)"] * len(names) + ["uri = ?"] * len(list(uris)))
    sql = (
        f"SELECT {columns} FROM read_parquet(?, hive_partitioning = false) WHERE ({conditions}) "
        f"AND NOT {DUPLICATE_SQL} ORDER BY image_id"
    )
    try:
        with results_database(folder.results) as connection:
            rows = connection.execute(sql, [table_name(folder.results), *names, *uris]).fetchall()
    except duckdb.Error as error:
        said = str(error).splitlines()[0][:200]
        raise AuditError(
            exits.FAILED, f"{folder.results}: the table cannot be read ({said}); line-audit verify says more"
        ) from error
    return [PublishedRow(*row) for row in rows]
