"""What the driver gets of a shard that was written: its rows, counted by what became of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa


class Outcome(NamedTuple):
    """What became of rows. category: whose autoencoder scored them, None if none did. stage, code: of the error."""

    decision: str
    category: str | None
    stage: str | None
    code: str | None


@dataclass(frozen=True)
class Receipt:
    """Of one shard: how many rows it has, and how many of each outcome."""

    shard: int
    rows: int
    outcomes: Mapping[Outcome, int]

    @classmethod
    def of(cls, shard: int, rows: Iterable[Mapping[str, Any]]) -> Receipt:
        """Of result rows."""
        keys = ("decision", "category", "error_stage", "error_code")
        outcomes = Counter(Outcome(*(row[key] for key in keys)) for row in rows)
        return cls(shard, outcomes.total(), outcomes)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Receipt:
        """Of a row of ``to_table``."""
        outcomes = {Outcome(*outcome): count for outcome, count in json.loads(row["outcomes"])}
        return cls(row["shard"], row["rows"], outcomes)

    def to_table(self) -> pa.Table:
        """One row: shard, rows, and the outcomes as JSON."""
        outcomes = json.dumps(list(self.outcomes.items()))
        return pa.table({"shard": [self.shard], "rows": [self.rows], "outcomes": [outcomes]})

    @property
    def decisions(self) -> Counter[str]:
        """Rows by decision."""
        found: Counter[str] = Counter()
        for outcome, count in self.outcomes.items():
            found[outcome.decision] += count
        return found
