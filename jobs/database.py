"""DuckDB over the tables of an output, wherever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from jobs.range_files import RangeFiles
from jobs.storage import scratch
from jobs.storage_errors import access
from jobs.uris import is_local, scheme_of
from manifests.database import database


@contextmanager
def results_database(*uris: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB with bounded memory that reads local files and those of the storages of ``uris``.

    DuckDB's own extension for S3 would have to be downloaded, and knows other credentials than the audit does. Nothing
    can be written to those storages. What a storage raises comes through DuckDB as an error of its own: it leaves as
    FileNotFoundError or StorageAccessError.
    """
    # One of each scheme: DuckDB asks it for all files of the scheme.
    remote = {scheme_of(uri): (uri, RangeFiles(uri)) for uri in uris if not is_local(uri)}
    with scratch() as local, database(local, "results") as connection:
        for _, files in remote.values():
            connection.register_filesystem(files)
        try:
            yield connection
        except duckdb.Error:
            for uri, files in remote.values():
                if (failed := files.take_failed()) is not None:
                    with access(uri):
                        raise failed from None
            raise


def table_name(uri: str) -> str:
    """A file as read_parquet is to be given it, which would take some characters of its name for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in uri)
