"""A DuckDB session over the committed runs of an output. It reads below the output, and writes nowhere."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.query.variables import FOLDER, runs_to_query, set_reviews, set_tables
from jobs.query.views import session_views
from jobs.range_files import RangeFiles, Reads
from jobs.storage import scratch
from jobs.storage_errors import access
from manifests.database import database

MEMORY = "2GB"
LEAST_THREADS = 4  # that wait for an object store more than they compute
ROWS_AT_ONCE = 2048
_TRACEBACK = "Traceback (most recent call last)"  # what DuckDB quotes of an error of RangeFiles
Row = tuple[Any, ...]
T = TypeVar("T")


@dataclass
class Answer:
    """What a statement gives. columns: names; none if it has no rows. rows: to be taken once. seconds, reads: spent by
    now, the reads of tables."""

    columns: list[str]
    rows: Iterator[Row]
    seconds: float
    reads: Reads


class Session:
    """A connection with the views. doubts: what a reader must know of the runs."""

    def __init__(
        self,
        output: str,
        connection: duckdb.DuckDBPyConnection,
        files: RangeFiles,
        pool: ThreadPoolExecutor,
        doubts: Sequence[str],
    ):
        self.connection, self.doubts = connection, tuple(doubts)
        self._output, self._files, self._pool = output, files, pool

    def answers(self, sql: str) -> Iterator[Answer]:
        """Run the statements of a text, one after the other; use each answer before the next one is asked for.

        Raises AuditError with DuckDB's message, StorageAccessError.
        """
        with _telling(self._files, self._output):
            statements = self.connection.extract_statements(sql)
        for statement in statements:
            yield self._answer(statement)

    def _answer(self, statement: duckdb.Statement) -> Answer:
        began, before = time.monotonic(), self._files.reads.copy()
        answer = Answer([], iter(()), 0.0, Reads())

        def spent() -> None:
            answer.seconds, answer.reads = time.monotonic() - began, self._files.reads.since(before)

        def rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[Row]:
            while True:
                some = self._run(lambda: cursor.fetchmany(ROWS_AT_ONCE))
                spent()
                if not some:
                    return
                yield from some

        cursor = self._run(lambda: self.connection.execute(statement))
        spent()
        if statement.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]:
            answer.columns, answer.rows = [one[0] for one in cursor.description or ()], rows(cursor)
        return answer

    def _run(self, work: Callable[[], T]) -> T:
        # In another thread: this one may compute for DuckDB otherwise, and see no interrupt until the end.
        with _telling(self._files, self._output):
            running = self._pool.submit(work)
            try:
                return running.result()
            except KeyboardInterrupt:
                self.connection.interrupt()
                wait([running])
                raise


@contextmanager
def open_session(output: str) -> Iterator[Session]:
    """A session on the runs that are committed now. output: normal URI of the folder or prefix that an audit wrote to.

    Raises AuditError if there is no committed run, or a record or table cannot be read; StorageAccessError.
    """
    runs, doubts = runs_to_query(output)
    files = RangeFiles(output, FOLDER)
    with scratch() as local, database(local, "query") as connection, ThreadPoolExecutor(1) as pool:
        connection.register_filesystem(files)
        connection.execute(f"SET memory_limit = '{MEMORY}'; SET parquet_metadata_cache = true")
        connection.execute(f"SET threads = {max(LEAST_THREADS, os.cpu_count() or 1)}")
        with _telling(files, output):
            set_tables(connection, output, runs)
            connection.execute(session_views())
            set_reviews(connection, output, runs)
        # From here on only files of the output can be opened, and RangeFiles opens none to write.
        connection.execute(f"SET allowed_directories = ['{FOLDER}://']; SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield Session(output, connection, files, pool, doubts)


@contextmanager
def _telling(files: RangeFiles, output: str) -> Iterator[None]:
    """What DuckDB raises as AuditError with its message, or as StorageAccessError where the storage was the cause."""
    files.take_failed()
    try:
        yield
    except (duckdb.Error, OSError) as error:
        failed = files.take_failed()
        if failed is None or (isinstance(failed, FileNotFoundError) and _TRACEBACK not in str(error)):
            raise AuditError(exits.USAGE, str(error)) from None
        if isinstance(failed, FileNotFoundError | io.UnsupportedOperation):
            raise AuditError(exits.USAGE, str(failed)) from None
        if isinstance(failed, OSError) and failed.errno == errno.EBUSY:  # s3fs: the object has another ETag by now
            raise AuditError(exits.USAGE, "a table was replaced while it was read; ask again") from None
        with access(output):
            raise failed from None
