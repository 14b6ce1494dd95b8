"""One value of a column with a fixed type, from what a file says to what the column holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Epoch numbers from here on are milliseconds: as seconds they would lie after the year 5138.
_MILLISECONDS_FROM = 10**11
_NOT_A_TIME_FROM = 10**14
_INT64 = 2**63


class BadValue(ValueError):
    """A value that the column cannot hold; the message says what it is."""


def parse_text(value: object) -> str | None:
    """Text as it is; a whole number as its digits (lines and cameras are often numbered). Empty is null."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadValue(f"{value!r} is not text")


def parse_uri(value: object) -> str | None:
    """Text as it is; nothing else is taken for a uri."""
    if value is None or isinstance(value, str):
        return value
    raise BadValue(f"{value!r} is not text")


def parse_time(value: object) -> datetime | None:
    """ISO 8601 (without an offset: UTC), or a number: seconds since 1970, from 1e11 on milliseconds."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return _utc(value, value)
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        # Of many digits fromisoformat would take the first eight for a date: 1712121512034 is not in 1712.
        if text.isdigit() and len(text) != 8:
            raise BadValue(f"{value!r} is not an ISO 8601 time (numbers as text are not taken for epoch seconds)")
        try:
            return _utc(datetime.fromisoformat(text), value)
        except ValueError as error:
            raise BadValue(f"{value!r} is not an ISO 8601 time") from error
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _from_epoch(value)
    raise BadValue(f"{value!r} is not a time")


def parse_size(value: object) -> int | None:
    """A whole number of bytes that fits int64, also as text or as a float without fraction. Empty is null."""
    if value is None:
        return None
    number: int | None = None
    if isinstance(value, str):
        if not value.strip():
            return None
        if re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", value):
            number = int(value)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int) or (
        isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)
    ):
        number = int(value)
    if number is None or not -_INT64 <= number < _INT64:
        raise BadValue(f"{value!r} is not a whole number of bytes")
    return number


def parse_labels(value: object) -> str | None:
    """Text as it is, JSON or not; what else JSON knows as JSON text, compact, keys sorted. Empty is null."""
    if value is None or isinstance(value, str):
        return value or None
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # JSON has no infinity, which is what Python makes of 1e999
        raise BadValue(f"it holds a number that JSON text cannot hold ({error})") from error


PARSERS: dict[str, Callable[[object], object]] = {
    "uri": parse_uri,
    "version_id": parse_text,
    "etag": parse_text,
    "captured_at": parse_time,
    "line": parse_text,
    "camera": parse_text,
    "declared_category": parse_text,
    "size": parse_size,
    "last_modified": parse_time,
    "labels": parse_labels,
}


def _utc(time: datetime, value: object) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise BadValue(f"{value!r} is out of range for a time") from error


def _from_epoch(value: int | float | Decimal) -> datetime:
    exact = Decimal(value)
    if not exact.is_finite() or abs(exact) >= _NOT_A_TIME_FROM:
        raise BadValue(f"{value!r} is not a time in seconds or milliseconds since 1970")
    scale = 1_000 if abs(exact) >= _MILLISECONDS_FROM else 1_000_000
    try:
        return _EPOCH + timedelta(microseconds=round(exact * scale))
    except OverflowError as error:
        raise BadValue(f"{value!r} is out of range for a time") from error
