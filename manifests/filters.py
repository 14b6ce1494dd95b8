"""Which rows of a manifest are taken: a condition, what is new since a time, a sample, a limit; in this order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import ManifestError, NothingLeft, row_names
from manifests.seen import Seen
from manifests.where import Condition

# So much is read before the names are looked up among those that were seen: each look goes through all of them.
_GROUP_BYTES = 64 * 2**20
_SAMPLE_DIGITS = 8
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Since:
    """Rows from before ``cut`` are left out, by last_modified, or captured_at where the manifest has no such column.

    Of the others, those without a time, and all where there is no cut, the ones whose image_id is among ``seen``: a
    Parquet file with a column image_id, of any length. Rows with a problem stay. Raises ValueError for a cut without a
    time zone.
    """

    cut: datetime | None
    seen: Path | None = None

    def __post_init__(self) -> None:
        if self.cut is not None and self.cut.tzinfo is None:
            raise ValueError(f"since {self.cut}: the time needs a zone")


@dataclass(frozen=True)
class Filters:
    """What of a manifest is frozen. where: a SQL expression (see `Condition`); sample: a share, of the images and not
    of the rows; limit: rows from the start. Raises ValueError for a share or a limit that leaves nothing.
    """

    where: str | None = None
    sample: float | None = None
    since: Since | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        if self.sample is not None and not 0 < self.sample <= 1:
            raise ValueError(f"sample must be above 0 and at most 1, not {self.sample}")


def parse_sample(text: str) -> float:
    """The share that "1%" or "0.5%" means. Raises ValueError for anything else, 0 % and more than 100 % too."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*%\s*", text, re.ASCII)
    share = float(Fraction(found[1]) / 100) if found else 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{text!r} is no share above 0% and up to 100%, such as 1% or 0.5%")
    return share


class Taken(NamedTuple):
    """Rows of one batch that are taken. row: int64, positions in the source; name: string, the image_id of each."""

    row: pa.Array
    name: pa.Array
    batch: pa.RecordBatch


class _Judged(NamedTuple):
    """What passed the condition. asked: whether a row is looked up among the seen; new, sampled: whether it is kept."""

    end: int  # of the batch, in the source
    row: npt.NDArray[np.int64]
    name: pa.Array
    batch: pa.RecordBatch
    new: Mask
    asked: Mask
    sampled: Mask


class Selection:
    """Filters at work on the batches of a reader.

    read: rows of the source up to the last one that counts, which with a limit is the last one taken; left_out: of
    these by filter, and for the limit whether the source goes on (1 or 0). Raises ManifestError for a condition that
    cannot be used.
    """

    def __init__(self, filters: Filters, extras: pa.Schema, name: str, work: Path):
        self.filters, self.read = filters, 0
        self.left_out = {key: 0 for key in ("where", "since", "sample", "limit") if getattr(filters, key) is not None}
        self._where = None if filters.where is None else Condition(filters.where, extras, name)
        since = filters.since
        self._seen = None if since is None or since.seen is None else Seen(since.seen, work)
        self._time = "last_modified" if "last_modified" in extras.names else "captured_at"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Taken]:
        """The rows that are taken, in source order. Stops reading when the limit is reached."""
        left = self.filters.limit
        for group in self._groups(batches):
            for judged in group:
                kept = judged.new & judged.sampled
                taken = int(kept.sum())
                if left is not None and taken >= left:
                    upto = int(np.flatnonzero(kept)[left - 1]) + 1
                    end = int(judged.row[upto - 1]) + 1
                    yield self._taken(judged, kept[:upto], end)
                    self.left_out["limit"] = int(group[-1].end > end or any(len(batch) for batch in batches))
                    return
                yield self._taken(judged, kept, judged.end)
                left = None if left is None else left - taken

    def close(self) -> None:
        """Give back the memory of what it looked things up in."""
        for tool in (self._where, self._seen):
            if tool is not None:
                tool.close()

    def none_left(self, name: str) -> ManifestError:
        """The error for a selection that took no row."""
        if not self.read:
            return ManifestError(f"{name}: the manifest has no rows; check how it was made")
        told = {
            "where": f"where {self.filters.where!r}",
            "since": f"since {_said(self.filters.since)}",
            "sample": f"the sample of {self.filters.sample or 0:.10g}",
        }
        said = ", ".join(f"{self.left_out[key]:,} by {text}" for key, text in told.items() if key in self.left_out)
        return NothingLeft(f"{name}: no row is left; of {self.read:,} rows were left out {said}", self.left_out)

    def _taken(self, judged: _Judged, kept: Mask, end: int) -> Taken:
        upto = len(kept)
        counts: dict[str, Any] = {
            "where": end - self.read - upto,
            "since": upto - judged.new[:upto].sum(),
            "sample": (judged.new[:upto] & ~judged.sampled[:upto]).sum(),
        }
        for key in self.left_out.keys() & counts.keys():
            self.left_out[key] += int(counts[key])
        self.read = end
        row, name, batch = pa.array(judged.row[:upto]), judged.name.slice(0, upto), judged.batch.slice(0, upto)
        if kept.all():
            return Taken(row, name, batch)
        mask = pa.array(kept)
        return Taken(row.filter(mask), name.filter(mask), batch.filter(mask))

    def _groups(self, batches: Iterator[pa.RecordBatch]) -> Iterator[list[_Judged]]:
        held: list[_Judged] = []
        size = start = 0
        for batch in batches:
            held.append(self._judged(batch, start))
            start, size = start + len(batch), size + batch.nbytes
            if self._seen is None or size >= _GROUP_BYTES:
                yield self._looked_up(held)
                held, size = [], 0
        yield self._looked_up(held)

    def _judged(self, batch: pa.RecordBatch, start: int) -> _Judged:
        end = start + len(batch)
        row = np.arange(start, end)
        if self._where is not None:
            held = self._where(batch)
            row, batch = row[np.asarray(held)], batch.filter(held)
        name = pa.array(row_names(batch, row.tolist()), pa.string())
        new, asked = self._since(batch)
        return _Judged(end, row, name, batch, new, asked, self._sampled(name))

    def _since(self, batch: pa.RecordBatch) -> tuple[Mask, Mask]:
        if self.filters.since is None:
            return np.ones(len(batch), bool), np.zeros(len(batch), bool)
        good, before = np.asarray(batch["problem_code"].is_null()), np.zeros(len(batch), bool)
        if self.filters.since.cut is not None:
            cut = pa.scalar(self.filters.since.cut.astimezone(UTC), batch.schema.field(self._time).type)
            before = np.asarray(pc.fill_null(pc.less(batch[self._time], cut), False))
        return ~(good & before), good & ~before

    def _sampled(self, name: pa.Array) -> Mask:
        # By the name, so that an image is in or out whatever manifest it comes from.
        if self.filters.sample is None:
            return np.ones(len(name), bool)
        limit = self.filters.sample * 16**_SAMPLE_DIGITS
        return np.array([int(one[:_SAMPLE_DIGITS], 16) < limit for one in name.to_pylist()], bool)

    def _looked_up(self, group: list[_Judged]) -> list[_Judged]:
        asked = [judged.name.filter(pa.array(judged.asked)) for judged in group]
        if self._seen is None or not any(map(len, asked)):
            return group
        seen, start = self._seen.among(pa.chunked_array(asked, pa.string())), 0
        for judged, names in zip(group, asked, strict=True):
            judged.new[judged.asked] &= ~seen[start : start + len(names)]
            start += len(names)
        return group


def _said(since: Since | None) -> str:
    return (
        "the runs before" if since is None or since.cut is None else f"{since.cut.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    )
