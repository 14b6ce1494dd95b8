"""A DuckDB of our own, with bounded memory."""

from __future__ import annotations

from pathlib import Path

import duckdb

MEMORY = "512MB"


def database(work: Path, name: str) -> duckdb.DuckDBPyConnection:
    """A database below ``work``, a folder of our own, where also goes what does not fit into memory. Times are UTC.

    name: of the database; two that are open at once have two.
    """
    connection = duckdb.connect(
        str(work / f"{name}.duckdb"),
        config={"memory_limit": MEMORY, "threads": 2, "temp_directory": str(work / f"spill-{name}")},
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection
