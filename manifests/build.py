"""Building a manifest from a listing of images, with what their paths say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.readers.values import parse_time
from manifests.schema import KNOWN_COLUMNS, TYPED_EXTRAS, ManifestError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")

_BATCH = 65_536
_TEXT_FIELDS = ("line", "camera", "declared_category")
_FIELDS = (*_TEXT_FIELDS, "captured_at")
# What a strftime directive matches in a path.
_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "j": r"(?P<day_of_year>\d{3})",
    "H": r"\d{2}",
    "I": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,6}",
    "p": r"[A-Za-z]{2}",
    "b": r"[A-Za-z]{3}",
    "B": r"[A-Za-z]{3,9}",
    "z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%": r"%",
}
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\{[^{}]*\}|[{}]|[^*{}]+")
# With ? for one character, and [a-z], [!a-z] for one of a set.
_WILD_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|\{[^{}]*\}|[{}\[]|[^*?\[{}]+")


def is_image_name(name: str) -> bool:
    """Whether a file name ends like that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


class PathPattern:
    """What the path of an image says, such as ``{line}/{camera}/{captured_at:%Y-%m-%d}/*``.

    Fields: line, camera, declared_category (each a piece of one folder or file name, once); captured_at with
    a strftime format, in one or several pieces that are read together (UTC unless %z is among them). ``*``
    stands for anything within a folder or file name, ``**`` for any number of folders; all else for itself.
    The whole path must match. wildcards: ``?`` and ``[a-z]`` too mean what they mean in a shell.

    Raises ManifestError naming the field that is wrong.
    """

    def __init__(self, pattern: str, *, wildcards: bool = False):
        self.pattern = pattern
        self._formats: list[str] = []
        fields: list[str] = []
        parts = []
        for piece in (_WILD_TOKEN if wildcards else _TOKEN).findall(pattern):
            if piece == "**/":
                parts.append("(?:.*/)?")
            elif piece == "**":
                parts.append(".*")
            elif piece == "*":
                parts.append("[^/]*")
            elif wildcards and piece == "?":
                parts.append("[^/]")
            elif wildcards and piece.startswith("[") and piece != "[":
                parts.append(self._set(piece))
            elif piece in "{}":
                raise ManifestError(f"pattern {pattern!r}: a {piece!r} without its partner")
            elif piece.startswith("{"):
                name, _, form = piece[1:-1].partition(":")
                parts.append(self._field(name, form, fields))
            else:
                parts.append(re.escape(piece))
        if self._formats:
            self._check_time()
        self.fields: tuple[str, ...] = tuple(name for name in KNOWN_COLUMNS.names if name in fields)
        self._regex = re.compile("".join(parts), re.DOTALL)

    def match(self, relative_path: str) -> dict[str, Any] | None:
        """The fields that the path says (captured_at: datetime in UTC, others: str), None if it does not
        match.

        A path with an impossible time, such as a 31st of February, does not match.
        """
        found = self._regex.fullmatch(relative_path)
        if found is None:
            return None
        values: dict[str, Any] = {name: found[name] for name in self.fields if name in _TEXT_FIELDS}
        if self._formats:
            pieces = [found[f"captured_at_{i}"] for i in range(len(self._formats))]
            try:
                time = datetime.strptime("|".join(pieces), "|".join(self._formats))
                values["captured_at"] = parse_time(time)
            except ValueError:
                return None
            day = found.groupdict().get("day_of_year")
            if day is not None and int(day) != time.timetuple().tm_yday:  # the 366th of a year of 365
                return None
        return values

    def _set(self, piece: str) -> str:
        """One character of a set, never a slash. Raises ManifestError for what is none, such as [z-a]."""
        inside = piece[1:-1]
        negated = "^" if inside.startswith("!") else ""
        text = "".join(c if c == "-" else re.escape(c) for c in inside.removeprefix("!"))
        text = f"(?!/)[{negated}{text}]"
        try:
            re.compile(text)
        except re.error as error:
            raise ManifestError(f"pattern {self.pattern!r}: {piece!r} is not a set of characters ({error})") from error
        return text

    def _field(self, name: str, form: str, fields: list[str]) -> str:
        if name not in _FIELDS:
            hint = "; write * without braces" if name.startswith("*") else ""
            raise ManifestError(f"pattern {self.pattern!r}: unknown field {name!r}, not in {', '.join(_FIELDS)}{hint}")
        if name == "captured_at":
            if not form:
                raise ManifestError(
                    f"pattern {self.pattern!r}: captured_at needs a format, such as {{captured_at:%Y-%m-%d}}"
                )
            group = f"captured_at_{len(self._formats)}"
            self._formats.append(form)
            fields.append(name)
            return f"(?P<{group}>{self._time(form)})"
        if form:
            raise ManifestError(f"pattern {self.pattern!r}: field {name} takes no format, but has {form!r}")
        if name in fields:
            raise ManifestError(f"pattern {self.pattern!r}: field {name} comes twice; write * for the other")
        fields.append(name)
        return f"(?P<{name}>[^/]+?)"

    def _time(self, form: str) -> str:
        parts = []
        for directive, literal in re.findall(r"%(.?)|([^%]+)", form, re.DOTALL):
            if literal:
                parts.append(re.escape(literal))
            elif directive in _DIRECTIVES:
                parts.append(_DIRECTIVES[directive])
            else:
                raise ManifestError(
                    f"pattern {self.pattern!r}: captured_at has the directive %{directive}, which is not in "
                    f"{', '.join('%' + known for known in _DIRECTIVES)}"
                )
        return "".join(parts)

    def _check_time(self) -> None:
        joined = "|".join(self._formats)
        used = [directive for directive in re.findall(r"%(.)", joined) if directive != "%"]
        twice = sorted({directive for directive in used if used.count(directive) > 1})
        if twice:
            raise ManifestError(f"pattern {self.pattern!r}: captured_at has %{twice[0]} twice")
        day = "j" in used or ("d" in used and not {"m", "b", "B"}.isdisjoint(used))
        if not day or {"Y", "y"}.isdisjoint(used):
            # strptime would make it the year 1900, or the first of January, without a word.
            raise ManifestError(f"pattern {self.pattern!r}: captured_at needs year, month and day")
        if "I" in used and "p" not in used:
            raise ManifestError(
                f"pattern {self.pattern!r}: captured_at has %I, the hour of twelve, without %p; or is it %H"
            )


@dataclass(frozen=True)
class BuildSummary:
    """rows: images listed; unmatched: those that the pattern does not fit; bytes: their sizes together."""

    rows: int
    unmatched: int
    bytes: int


def build(entries: Iterable[Mapping[str, Any]], output: Path, pattern: PathPattern | None = None) -> BuildSummary:
    """Write a Parquet manifest of the listed images.

    entries: mappings with uri (str), relative_path (str, below what was listed), size (int, bytes), etag (str
    or None), last_modified (datetime, ISO 8601 or None). A path that does not match the pattern leaves the
    pattern's columns null.

    Raises ManifestError for a path that is not Unicode, which no manifest can name; `output` is then removed.
    """
    fields = () if pattern is None else pattern.fields
    schema = pa.schema(
        [
            KNOWN_COLUMNS.field("uri"),
            TYPED_EXTRAS.field("size"),
            KNOWN_COLUMNS.field("etag"),
            TYPED_EXTRAS.field("last_modified"),
            *(KNOWN_COLUMNS.field(name) for name in fields),
        ]
    )
    rows = unmatched = size = 0
    held: list[dict[str, Any]] = []
    try:
        with pq.ParquetWriter(output, schema, compression="zstd") as writer:
            for entry in entries:
                said = None if pattern is None else pattern.match(entry["relative_path"])
                held.append(_row(entry) | (said or {}))
                rows += 1
                unmatched += pattern is not None and said is None
                size += entry["size"] or 0
                if len(held) == _BATCH:
                    writer.write_batch(pa.RecordBatch.from_pylist(held, schema))
                    held.clear()
            if held:
                writer.write_batch(pa.RecordBatch.from_pylist(held, schema))
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    return BuildSummary(rows, unmatched, size)


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    try:
        entry["uri"].encode()
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"{entry['uri']!r}: the name is not UTF-8, which no manifest can hold; rename it"
        ) from error
    modified = parse_time(entry["last_modified"])
    return {"uri": entry["uri"], "size": entry["size"], "etag": entry["etag"], "last_modified": modified}
