"""One reader per manifest format. A new format is a file here and a line in `_READERS` and `_SUFFIXES`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from manifests.readers.csv import CsvReader, names_in
from manifests.readers.jsonl import JsonlReader, first_object
from manifests.readers.lines import UTF8_BOM, opened
from manifests.readers.options import AS_THEY_ARE, ReadOptions
from manifests.readers.parquet import ParquetReader
from manifests.readers.reader import ManifestReader
from manifests.readers.sagemaker import SagemakerReader, is_sagemaker
from manifests.schema import ManifestError

__all__ = ["AS_THEY_ARE", "FORMATS", "ManifestReader", "ReadOptions", "detect_format", "open_manifest"]

_READERS: dict[str, Callable[[Path, ReadOptions], ManifestReader]] = {
    "parquet": ParquetReader,
    "csv": CsvReader,
    "jsonl": JsonlReader,
    "sagemaker": SagemakerReader,
}
_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMATS = tuple(_READERS)


def detect_format(path: Path, options: ReadOptions = AS_THEY_ARE) -> str:
    """One of `FORMATS`: by name, else by the first bytes; of JSON Lines the first object tells whose they are.

    Raises ManifestError if neither tells.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in _SUFFIXES:
        found = _SUFFIXES[suffix]
        return _json_format(path, options) if found == "jsonl" else found
    with opened(path) as stream:
        start = stream.read(65_536)
    if start.startswith(b"PAR1"):
        return "parquet"
    start = start.removeprefix(UTF8_BOM).lstrip()
    if start.startswith(b"{"):
        return _json_format(path, options)
    if options.columns.get("uri", "uri") in names_in(start):
        return "csv"
    raise ManifestError(f"{path}: neither name nor content tells the format; give it ({', '.join(FORMATS)})")


def open_manifest(path: Path, format: str | None = None, options: ReadOptions = AS_THEY_ARE) -> ManifestReader:
    """The reader of a manifest. format: one of `FORMATS`; None to detect it.

    Raises ManifestError if the format is unknown or the file cannot be used, OSError if it cannot be opened.
    """
    chosen = detect_format(path, options) if format is None else format
    if chosen not in _READERS:
        raise ManifestError(f"{path}: unknown manifest format {chosen!r}; it must be one of {', '.join(FORMATS)}")
    return _READERS[chosen](path, options)


def _json_format(path: Path, options: ReadOptions) -> str:
    return "sagemaker" if is_sagemaker(first_object(path), options) else "jsonl"
