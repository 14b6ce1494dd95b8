"""The type of a JSON Lines column, from all of its values."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

# From here on a float64 does not hold every whole number.
_EXACT = 2**53
_INT64 = 2**63


class ColumnType:
    """bool, int64, float64 (whole numbers and fractions), string; else JSON text. Nulls do not count."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()

    def see(self, value: Any) -> None:
        """Take a value into account."""
        self._kinds.update(_kinds(value))

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type that holds every value seen without loss."""
        kinds = self._kinds
        if kinds == {"bool"}:
            return pa.bool_()
        if kinds and kinds <= {"int", "wide"}:
            return pa.int64()
        if kinds and kinds <= {"int", "float"}:
            return pa.float64()
        return pa.string()

    def convert(self, value: Any) -> Any:
        """The value as the column holds it."""
        if value is None or self._kinds <= {"str"}:
            return value
        arrow = self.arrow
        if pa.types.is_string(arrow):
            return json.dumps(value, ensure_ascii=False)
        return float(value) if pa.types.is_floating(arrow) else value


def _kinds(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, bool):
        return ("bool",)
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            return ("other",)
        return ("int",) if abs(value) <= _EXACT else ("wide",)
    if isinstance(value, float):
        return ("float",)
    return ("str",) if isinstance(value, str) else ("other",)
