"""DuckDB over tables: what is named is read, and nothing that merely looks like it."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.database import results_database, table_name
from jobs.storage import write_bytes
from jobs.uris import join

NAMES = ("[ab]", "a", "*", "?", "plain", "[[]")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_pattern(tmp_path: Path, s3: str, name: str) -> None:
    for place in (str(tmp_path), "s3://bucket/names"):
        for number, one in enumerate(NAMES):
            file = io.BytesIO()
            pq.write_table(pa.table({"number": [number]}), file)
            write_bytes(join(place, f"{one}=1", "audit.parquet"), file.getvalue())
        uri = join(place, f"{name}=1", "audit.parquet")
        with results_database(uri) as connection:
            found = connection.execute("FROM read_parquet(?, hive_partitioning = false)", [table_name(uri)]).fetchall()
        assert found == [(NAMES.index(name),)]
