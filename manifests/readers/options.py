"""How a manifest is to be read: which of its columns are known ones under another name, and where relative uris lie."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manifests.schema import KNOWN_COLUMNS, TYPED_EXTRAS, ManifestError, printable
from manifests.secrets import REFUSED, without_secrets

KNOWN = (*KNOWN_COLUMNS.names, *TYPED_EXTRAS.names)


@dataclass(frozen=True)
class ReadOptions:
    """columns: known column -> its name in the file; base: what relative uris are put behind, with one slash between.

    Raises ManifestError for a column that is not known, for two known columns from one column of the file, and for
    a base that names no place or holds credentials.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None

    def __post_init__(self) -> None:
        _check(self.columns.items())
        if self.base is None:
            return
        if without_secrets(self.base) != self.base:
            raise ManifestError(f"base {without_secrets(self.base)!r}: {REFUSED}")
        if not self.base.strip() or re.fullmatch(r"[A-Za-z0-9+.-]+:/*", self.base):
            raise ManifestError(
                f"base {self.base!r} names no bucket and no folder; write one, such as s3://bucket/images/"
            )

    @staticmethod
    def parse_map(text: str) -> dict[str, str]:
        """``uri=s3_key,captured_at=ts``, one record of CSV, as known column -> column of the file.

        So an entry with a comma in it stands in quotes, ``uri=key,"captured_at=date, time"``. What follows the first
        ``=`` of an entry is the column's name exactly. Raises ManifestError naming the entry that is wrong.
        """
        try:
            entries = next(csv.reader([text], strict=True, skipinitialspace=True), [])
        except csv.Error as error:
            raise ManifestError(
                f"column mapping {printable(text)!r}: quotes or line breaks cannot be read ({error}); an entry "
                'with a comma in it stands in quotes, and quotes within those are doubled: "line=the ""line"", by name"'
            ) from error
        pairs = []
        for entry in entries or [""]:
            known, equals, column = entry.partition("=")
            if not equals or not known.strip() or not column:
                raise ManifestError(
                    f"column mapping {printable(text)!r}: {printable(entry)!r} is not a known column, '=' and its name "
                    "in the file, as in uri=s3_key,captured_at=ts"
                )
            pairs.append((known.strip(), column))
        _check(pairs)
        return dict(pairs)

    def renamed(self, path: Path, names: Iterable[str], what: str = "column") -> dict[str, str]:
        """Name in the file -> name as it is read, for all names of the file, in their order.

        Raises ManifestError if a mapped name is not there, or if a known column that is mapped is there under its own
        name too.
        """
        found = dict.fromkeys(names)
        read_as = {column: known for known, column in self.columns.items()}
        for column, known in read_as.items():
            if column not in found:
                shown = ", ".join(map(repr, found))[:300] or "none"
                raise ManifestError(
                    f"{path}: there is no {what} {column!r} to be read as {known} (case counts); the file has: {shown}"
                )
        for known, column in self.columns.items():
            if known in found and known not in read_as:
                raise ManifestError(
                    f"{path}: {what} {column!r} is to be read as {known}, but the file has a {what} {known!r} too; "
                    f"rename that one in the file, or leave {known} out of the mapping"
                )
        return {name: read_as.get(name, name) for name in found}


def _check(pairs: Iterable[tuple[str, str]]) -> None:
    known_to: dict[str, str] = {}
    column_to: dict[str, str] = {}
    for known, column in pairs:
        if known not in KNOWN:
            raise ManifestError(
                f"column mapping: {printable(known)!r} is not a known column, one of {', '.join(KNOWN)}"
            )
        if known in known_to:
            raise ManifestError(f"column mapping: {known} comes twice; give it one column of the file")
        if column in column_to:
            raise ManifestError(
                f"column mapping: {printable(column)!r} is given for {column_to[column]} and for {known}; "
                "a column can be read as one known column only"
            )
        known_to[known], column_to[column] = column, known


AS_THEY_ARE = ReadOptions()
"""Every column under its own name, uris as they are written."""
