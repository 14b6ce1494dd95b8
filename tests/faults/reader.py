"""A reader of results who looks all the time, with a glob, and must never see anything but the whole table."""

from __future__ import annotations

import hashlib
import io
import threading
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq

from jobs.listing import listing
from jobs.storage import read_bytes
from jobs.uris import is_local, join
from tests.jobs.audit.tables import stable

Rows = list[dict[str, Any]]


class Reader:
    """Reads ``results/**/*.parquet`` below an output in a thread. expected: the rows of the undisturbed run; of a
    retry, those before it too.

    looks: how often it looked. seen: digests of the tables that were right. wrong: what it saw that it must not see.
    """

    def __init__(self, output: str, *expected: Rows):
        self.output, self.expected = output, expected
        self.looks, self.seen, self.wrong = 0, set[str](), list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> int:
        """Look once; the number of tables that are there."""
        found = [e for e in listing(join(self.output, "results")) if e.relative_path.endswith(".parquet")]
        self.looks += 1
        if len(found) > 1:
            self.wrong.append(f"{len(found)} tables: {[e.relative_path for e in found]}")
        for entry in found:
            data = read_bytes(entry.uri)
            digest = hashlib.sha256(data).hexdigest()
            if digest not in self.seen:
                rows = stable(pq.read_table(io.BytesIO(data)))
                if rows not in self.expected:
                    self.wrong.append(f"look {self.looks}: {len(rows)} rows that are not those of the undisturbed run")
                self.seen.add(digest)
        return len(found)

    def _read(self) -> None:
        pause = 0.02 if is_local(self.output) else 0.2
        try:
            while not self._stop.wait(pause):
                self.look()
        except BaseException as error:  # told by the test, which looks at wrong; a thread's own error is seen by nobody
            self.wrong.append(f"look {self.looks}: {type(error).__name__}: {error}")
            raise
