"""Files of any storage as DuckDB reads them: in ranges, from many threads at once, and never written."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fsspec import AbstractFileSystem

from jobs.storage import filesystem
from jobs.uris import is_local, path_of, scheme_of

_NO_WRITING = "nothing can be written here"


@dataclass
class Reads:
    """What was read of a storage: bytes of file contents, and in how many requests."""

    bytes: int = 0
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, count: int) -> None:
        """One more request, which brought so many bytes."""
        with self.lock:
            self.bytes += count
            self.requests += 1

    def copy(self) -> Reads:
        """The counts as they are now."""
        with self.lock:
            return Reads(self.bytes, self.requests)

    def since(self, earlier: Reads) -> Reads:
        """What was read after a copy of these counts was taken."""
        return Reads(self.bytes - earlier.bytes, self.requests - earlier.requests)


class RangeFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A storage for ``connection.register_filesystem``.

    DuckDB's threads share an open file, and ask it to seek and to read in two calls: a file with one position gives a
    thread what another one asked for. fsspec's files also read ahead, tens of MB for a footer. Here each thread has a
    position of its own, and what is fetched is what was asked for.

    storage: any URI of the storage. folder: what DuckDB names its files below, as ``output://results/a.parquet``; None
    if it takes them by their URIs. reads: what was read by now. failed: the first error of the storage since it was
    last taken, because DuckDB turns it into one of its own.
    """

    cachable = False

    def __init__(self, storage: str, folder: str | None = None):
        super().__init__()
        self.protocol = folder or scheme_of(storage)
        self.reads, self.failed = Reads(), list[Exception]()
        self._storage, self._prefix = filesystem(storage), f"{path_of(storage)}/" if folder else ""
        self._local = is_local(storage)
        # What an object store told when a file was opened; DuckDB asks for it right afterwards.
        self._told = dict[str, dict[str, Any]]()

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """A file to read. Raises io.UnsupportedOperation for any other mode, FileNotFoundError, also for a folder."""
        with self._noting():
            if mode != "rb":
                raise io.UnsupportedOperation(f"{path}: {_NO_WRITING}")
            try:
                if self._local:
                    return RangeFile(self._storage.open(self._inner(path), "rb"), self)
                file = self._storage.open(self._inner(path), "rb", cache_type="none")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise FileNotFoundError(f"{path}: there is no such file") from None
            self._told[path] = dict(file.details)
            return RangeFile(file, self)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        """Nothing: DuckDB asks for it only before it would write into a folder. Raises io.UnsupportedOperation."""
        with self._noting():
            raise io.UnsupportedOperation(f"{path}: {_NO_WRITING}")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """As the storage tells."""
        with self._noting():
            return self._told.get(path) or dict(self._storage.info(self._inner(path)))

    def modified(self, path: str) -> Any:
        """When the file was written."""
        told = self._told.get(path, {}).get("LastModified")
        with self._noting():
            return told or self._storage.modified(self._inner(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file."""
        with self._noting():
            return bool(self._storage.exists(self._inner(path)))

    def isfile(self, path: str) -> bool:
        """Whether there is such a file, and it is no folder."""
        with self._noting():
            return bool(self._storage.isfile(self._inner(path)))

    def isdir(self, path: str) -> bool:
        """Whether there is such a folder."""
        with self._noting():
            return bool(self._storage.isdir(self._inner(path)))

    def glob(self, path: str, **_: Any) -> list[str]:
        """The files that a pattern names. A name that is no pattern need not be there: opening it tells."""
        folder = "".join(f"[{c}]" if c in "*?[" else c for c in self._prefix)  # its own name is no pattern
        with self._noting():
            name = self._name(path)
            if not set("*?[") & set(name):
                return [path]
            found: dict[str, dict[str, Any]] = self._storage.glob(f"{folder}{name}", detail=True)
        files = sorted(name for name, told in found.items() if told["type"] == "file")
        return [f"{self.protocol}://{name.removeprefix(self._prefix)}" for name in files]

    def fetch(self, file: Any, start: int, end: int) -> bytes:
        """The bytes of an open file from ``start`` to before ``end``; any number of threads may ask at once.

        Raises OSError, also if an object was replaced since it was opened.
        """
        with self._noting():
            data = os.pread(file.fileno(), end - start, start) if self._local else file._fetch_range(start, end)
        self.reads.add(len(data))
        return bytes(data)

    def take_failed(self) -> Exception | None:
        """The first error of the storage since this was called last."""
        failed, self.failed = self.failed, []
        return failed[0] if failed else None

    def _inner(self, path: str) -> str:
        return f"{self._prefix}{self._name(path)}"

    def _name(self, path: str) -> str:
        name = path.removeprefix(f"{self.protocol}://")
        if self._prefix and ".." in name.split("/"):
            raise io.UnsupportedOperation(f"{path}: '..' leads out of the folder")
        return name

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed.append(error)
            raise


class RangeFile(io.RawIOBase):
    """An open file that threads share: each reads where it has just sought, whatever the others do meanwhile; a read
    without a seek goes on where the last one ended, whosever that was.

    DuckDB reads ranges of tables in the first way. What it reads from one end to the other, as JSON and what is
    compressed, it reads in the second: one thread after the other, and one of DuckDB's own has no thread-local values
    that outlive a call.
    """

    def __init__(self, file: Any, files: RangeFiles):
        self._file, self._files = file, files
        self._size = int(file.size)
        self._next, self._streamed = 0, 0  # where the last read ended, and how many began where another one had
        self._sought = threading.local()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of this thread's next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        self._next = base + offset
        self._sought.place = (self._next, self._streamed)
        return self._next

    def tell(self) -> int:
        """The position of this thread's next read."""
        own = self._own()
        return self._next if own is None else own

    def read(self, size: int = -1) -> bytes:
        """So many bytes from there, fewer at the end of the file."""
        own = self._own()
        start = self._next if own is None else own
        end = self._size if size < 0 else min(start + size, self._size)
        data = b""
        if start < end:
            data = self._files.fetch(self._file, start, end)
        self._next = start + len(data)
        if own is None:
            self._streamed += 1
        else:
            self._sought.place = (self._next, self._streamed)
        return data

    def _own(self) -> int | None:
        """Where this thread has sought, and read on since; None if another one has read on from there."""
        place, streamed = getattr(self._sought, "place", (0, None))
        return int(place) if streamed == self._streamed else None

    def readinto(self, buffer: Any) -> int:
        """As ``read``, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close the file of the storage too."""
        self._file.close()
        super().close()
