"""One reader per manifest format. A new format is a file here and a line in `_READERS` and `_SUFFIXES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from manifests.readers.csv import CsvReader
from manifests.readers.jsonl import JsonlReader
from manifests.readers.lines import UTF8_BOM, opened
from manifests.readers.parquet import ParquetReader
from manifests.schema import ManifestError


class ManifestReader(Protocol):
    """A manifest opened for reading."""

    schema_extras: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of at most 65,536 rows with `manifests.schema.batch_schema(schema_extras)`, in file order.

        A bad row is a row with a problem_code; only a file that cannot be read on raises ManifestError.
        """
        ...


_READERS: dict[str, Callable[[Path], ManifestReader]] = {
    "parquet": ParquetReader,
    "csv": CsvReader,
    "jsonl": JsonlReader,
}
_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMATS = tuple(_READERS)


def detect_format(path: Path) -> str:
    """parquet, csv or jsonl: by name, else by the first bytes. Raises ManifestError if neither tells."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    with opened(path) as stream:
        start = stream.read(65_536)
    if start.startswith(b"PAR1"):
        return "parquet"
    start = start.removeprefix(UTF8_BOM).lstrip()
    if start.startswith(b"{"):
        return "jsonl"
    header = start.partition(b"\n")[0].strip().split(b",")
    if b"uri" in [name.strip(b' "') for name in header]:
        return "csv"
    raise ManifestError(f"{path}: neither name nor content tells the format; give it ({', '.join(FORMATS)})")


def open_manifest(path: Path, format: str | None = None) -> ManifestReader:
    """The reader of a manifest. format: parquet, csv or jsonl; None to detect it.

    Raises ManifestError if the format is unknown or the file cannot be used, OSError if it cannot be opened.
    """
    chosen = detect_format(path) if format is None else format
    if chosen not in _READERS:
        raise ManifestError(f"{path}: unknown manifest format {chosen!r}; it must be one of {', '.join(FORMATS)}")
    return _READERS[chosen](path)
