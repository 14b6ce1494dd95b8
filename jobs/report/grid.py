"""Scores counted on a logarithmic grid that is the same for all nights, so that nights are compared without tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

# 16 decades in steps of 0.9 %: scores are mean squares, and nobody's spread is as narrow as a step. What is beyond an
# end is counted in the bin there.
LOWEST_EXPONENT, DECADES, PER_DECADE = -8, 16, 256
BINS = DECADES * PER_DECADE
EDGES: npt.NDArray[np.float64] = 10.0 ** (np.arange(BINS + 1) / PER_DECADE + LOWEST_EXPONENT)
# The bin of column ``score`` in DuckDB.
BIN_SQL = (
    f"least(greatest(floor((log10(greatest(score, 1e-300)) - {LOWEST_EXPONENT}) * {PER_DECADE}), 0), {BINS - 1})"
    "::INTEGER"
)

Counts = npt.NDArray[np.int64]
# A number of rows, as a report.json that may be damaged has it.
Count = Annotated[int, Field(ge=0, le=2**53)]


class Histogram(BaseModel):
    """Counts of consecutive bins of the grid, the first of which is ``first``; the others have none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int = 0
    counts: tuple[Count, ...] = ()

    @classmethod
    def of(cls, counts: Counts) -> Histogram:
        """From the counts of all bins, int64 (BINS,)."""
        (there,) = np.nonzero(counts)
        if not len(there):
            return cls()
        return cls(first=int(there[0]), counts=tuple(counts[there[0] : there[-1] + 1].tolist()))

    def dense(self) -> Counts:
        """The counts of all bins, int64 (BINS,). Raises ValueError if they do not fit the grid."""
        if self.first < 0 or self.first + len(self.counts) > BINS:
            raise ValueError(f"{len(self.counts)} bins from {self.first} are not on the grid of {BINS}")
        counts = np.zeros(BINS, np.int64)
        counts[self.first : self.first + len(self.counts)] = self.counts
        return counts


def counted(scores: Sequence[float]) -> Counts:
    """Scores on the grid, int64 (BINS,)."""
    exponents = np.log10(np.maximum(np.asarray(scores, np.float64), 1e-300))
    bins = np.clip(np.floor((exponents - LOWEST_EXPONENT) * PER_DECADE), 0, BINS - 1).astype(np.int64)
    return np.bincount(bins, minlength=BINS)


def below(counts: Counts, threshold: float) -> Counts:
    """The bins that lie below a threshold as a whole, int64 (BINS,); the others are 0."""
    return np.where(EDGES[1:] <= threshold, counts, 0)


def median(counts: Counts) -> float:
    """The middle of the bin that holds the median score. Raises ValueError if there is no score."""
    total = int(counts.sum())
    if not total:
        raise ValueError("no score has no median")
    at = int(np.searchsorted(np.cumsum(counts), (total + 1) / 2))
    return float(np.sqrt(EDGES[at] * EDGES[at + 1]))
