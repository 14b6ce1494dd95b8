"""What a verification tells: one line for each thing that was held against run.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa

EXAMPLES = 3

Status = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True)
class Check:
    """One check. said: what was found, for people. examples: the first few files or rows that do not hold."""

    name: str
    status: Status
    said: str
    examples: tuple[str, ...] = ()


def readable(name: str, check: Callable[[], Check]) -> Check:
    """The check, or a failed one that says why its file cannot be read: damage shows anywhere in a Parquet file."""
    try:
        return check()
    except FileNotFoundError as error:
        return Check(name, "failed", f"not there: {error.filename or error}")
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Check(name, "failed", f"cannot be read: {first[:200]}")


def named(count: int, what: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
