"""Review queues and verdicts as people hand them back: CSV, in whatever way their spreadsheet has saved it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from jobs.audit import exits
from jobs.audit.exits import AuditError

Truth = Literal["good", "defective"]
VERDICTS: tuple[Truth, ...] = ("good", "defective")
HEADER = ("image_id", "verdict")
DELIMITERS = ",;\t"
BOOLEANS = {"true": True, "false": False}


def read_verdicts(name: str, data: bytes) -> dict[str, Truth]:
    """The verdict of each image_id that has one. Raises AuditError naming the file, the line and the remedy, also if
    there is none."""
    found = table_of_verdicts(name, data)
    if not found:
        raise AuditError(exits.USAGE, f"{name}: no row has a verdict; write good or defective into that column")
    return found


def table_of_verdicts(name: str, data: bytes) -> dict[str, Truth]:
    """The verdict of each image_id that has one, if any has. Raises AuditError naming file, line and remedy."""
    found: dict[str, Truth] = {}
    for line, row in _rows(name, data, HEADER):
        image, said = row["image_id"], row["verdict"].lower()
        if not said:
            continue
        verdict = next((one for one in VERDICTS if one == said), None)
        if verdict is None:
            raise AuditError(exits.USAGE, f"{name}, line {line}: verdict {said[:40]!r}; write good or defective")
        if found.setdefault(image, verdict) != verdict:
            raise AuditError(exits.USAGE, f"{name}, line {line}: two verdicts for {image[:40]!r}")
    return found


@dataclass(frozen=True)
class Queue:
    """A queue as it was drawn. passed: parts that passed in this version of the run's results; sample: image_ids of
    those of them that were drawn at random; images: all image_ids of the queue."""

    run_id: str
    version: int
    passed: int
    sample: frozenset[str]
    images: frozenset[str]


def read_queue(name: str, data: bytes) -> Queue:
    """What a queue says of its random sample. Raises AuditError naming the file, the line and the remedy."""
    drawn, sample, images = set(), set(), set()
    for line, row in _rows(name, data, ("image_id", "random", "run_id", "version", "passed")):
        if row["random"].lower() not in BOOLEANS or not (row["version"] + row["passed"]).isdecimal():
            said = ", ".join(row[column][:20] for column in ("random", "version", "passed"))
            raise AuditError(
                exits.USAGE,
                f"{name}, line {line}: random, version and passed are {said}; they were true or false and two numbers",
            )
        images.add(row["image_id"])
        drawn.add((row["run_id"], int(row["version"]), int(row["passed"])))
        if BOOLEANS[row["random"].lower()]:
            sample.add(row["image_id"])
    if len(drawn) != 1:
        raise AuditError(exits.USAGE, f"{name}: a queue has rows, all with one run_id, version and passed")
    return Queue(*drawn.pop(), frozenset(sample), frozenset(images))


def _rows(name: str, data: bytes, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and these columns, stripped, of each row that has something in them.

    UTF-8 with or without its mark; commas, semicolons or tabs, whichever find the columns in the first line; any line
    ends.
    """
    try:
        text = data.decode("utf-8-sig")
        delimiter, places = _layout(name, text, columns)
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        next(reader)
        for cells in reader:
            row = {column: cells[at].strip() if at < len(cells) else "" for column, at in places.items()}
            if any(row.values()):
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise AuditError(exits.USAGE, f'{name}: not a CSV in UTF-8 ({error}); save it as "CSV UTF-8"') from error


def _layout(name: str, text: str, columns: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The delimiter, and the place of each column."""
    for delimiter in DELIMITERS:
        with suppress(csv.Error):  # of quotes that do not end where another delimiter would be
            reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
            heading = [title.strip().lower() for title in next(reader, [])]
            if set(columns) <= set(heading):
                return delimiter, {column: heading.index(column) for column in columns}
    raise AuditError(exits.USAGE, f"{name}: its first line must name the columns {', '.join(columns)}")
