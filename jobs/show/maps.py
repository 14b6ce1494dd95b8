"""The error map of a published row, from the one shard file that holds it."""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anomaly_core.forms import GRID
from jobs.audit import exits
from jobs.audit.committed import retries
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord, shard_name
from jobs.audit.results import DAMAGE
from jobs.database import results_database, table_name
from jobs.show.rows import PublishedRow
from jobs.storage import read_bytes
from jobs.uris import join


def error_map(folder: RunFolder, record: RunRecord, row: PublishedRow) -> npt.NDArray[np.float32]:
    """Float32 (28, 28), of a row that has a score. Raises AuditError if the shard is gone, damaged, or of other scores
    than the published table."""
    place, shard = _newest(folder, record, row)
    uri = join(place.shards, shard_name(shard))
    try:
        data = read_bytes(uri)
    except FileNotFoundError as error:
        raise AuditError(
            exits.FAILED, f"{uri}: the shard with the error map of {row.image_id} is gone; put a copy of it there"
        ) from error
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read(["image_id", "score", "error_map"])
    except DAMAGE as error:
        raise AuditError(exits.FAILED, f"{uri}: the shard is damaged ({error}); put a copy of it there") from error
    found = table.filter(pc.and_(pc.equal(table["image_id"], row.image_id), pc.is_valid(table["error_map"])))
    if found["score"].to_pylist() != [row.score]:
        raise AuditError(
            exits.FAILED,
            f"{uri}: it does not hold {row.image_id} with its published score; line-audit verify says more",
        )
    values = found["error_map"].combine_chunks().flatten().to_numpy()
    return values.astype(np.float32).reshape(GRID, GRID)


def _newest(folder: RunFolder, record: RunRecord, row: PublishedRow) -> tuple[RunFolder, int]:
    """Whose shard has the published row: of the last retry that scored it again, else of the run itself."""
    for place, frozen in reversed(retries(folder, record)):
        shard = _shard_in(list(place.parts(frozen.parts)), row.image_id)
        if shard is not None:
            return place, shard
    return folder, row.shard


def _shard_in(parts: list[str], image_id: str) -> int | None:
    """The shard of an image in the parts of a frozen manifest, or None if it is not in them."""
    try:
        with results_database(*parts) as connection:
            found = connection.execute(
                "SELECT shard FROM read_parquet(?, hive_partitioning = false) WHERE image_id = ?",
                [[table_name(part) for part in parts], image_id],
            ).fetchone()
    except (duckdb.Error, FileNotFoundError) as error:
        said = str(error).splitlines()[0][:200]
        raise AuditError(exits.FAILED, f"the frozen manifest of a retry cannot be read ({said})") from error
    return None if found is None else int(found[0])
