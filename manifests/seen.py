"""Images that were seen before, looked up outside Python's memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.database import database
from manifests.schema import ManifestError


class Seen:
    """The image_ids of a Parquet file. work: a folder of our own, for what does not fit into memory.

    Raises ManifestError if the file has no column image_id.
    """

    def __init__(self, file: Path, work: Path):
        if "image_id" not in pq.read_schema(file).names:
            raise ManifestError(f"{file}: no column image_id; name a table of results, or one with such a column")
        self._connection = database(work, "seen")
        self._connection.execute("CREATE TABLE seen AS SELECT image_id FROM read_parquet(?)", [str(file)])

    def among(self, names: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Which of these image_ids, strings, were seen."""
        self._connection.register("asked", pa.table({"i": pa.array(np.arange(len(names))), "image_id": names}))
        found = self._connection.sql("SELECT i FROM asked SEMI JOIN seen USING (image_id)").to_arrow_table()
        self._connection.unregister("asked")
        mask = np.zeros(len(names), bool)
        mask[found["i"].to_numpy()] = True
        return mask

    def close(self) -> None:
        """It is not asked again."""
        self._connection.close()
