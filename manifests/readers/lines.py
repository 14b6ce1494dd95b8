"""The lines of a text file, gzipped or not: bounded in length, numbered, with failures that name it."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from manifests.schema import ManifestError

GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"
MAX_LINE = 2**20  # bytes; the rest of a longer line is not kept


class Line(NamedTuple):
    """A line with its end. cut: it was longer than MAX_LINE, and this is its beginning."""

    number: int
    data: bytes
    cut: bool

    @property
    def blank(self) -> bool:
        """Nothing but white space."""
        return not self.data.strip(b" \t\r\n") and not self.cut


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unzipped if it is gzip by content. Raises ManifestError if that is damaged."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not zipped:
            yield raw
            return
        try:
            with gzip.open(raw, "rb") as stream:
                yield io.BufferedReader(stream, 2**16)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ManifestError(
                f"{path}: the gzip file is damaged or cut short ({error}); write or copy it again"
            ) from error


def lines(path: Path, stream: BinaryIO) -> Iterator[Line]:
    """The lines of a UTF-8 file without its byte order mark, numbered from 1; LF ends a line.

    Raises ManifestError for UTF-16 and UTF-32, in which no line could be read.
    """
    number = 0
    while data := stream.readline(MAX_LINE):
        number += 1
        cut = len(data) == MAX_LINE and not data.endswith(b"\n")
        if cut:
            rest = data
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE)
        if number == 1:
            if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
                raise ManifestError(f"{path}: the text is UTF-16 or UTF-32; save it as UTF-8")
            data = data.removeprefix(UTF8_BOM)
        yield Line(number, data, cut)


def replaced(text: str, how: str = "surrogatepass") -> str:
    """The text with lone surrogates shown as U+FFFD. how: surrogateescape if they stand for bytes."""
    return text.encode("utf-8", how).decode("utf-8", "replace")
