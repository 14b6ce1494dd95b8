"""Which night it is."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobs.audit.exits import USAGE, AuditError


def night_of(now: datetime, zone: ZoneInfo, ends: time) -> date:
    """The date of the night at a moment: nights bear the date on which they begin.

    So a start at 02:00 and its retries up to ``ends`` audit the day before, and a start at 23:30 and its retries after
    midnight both audit the day of the start. now: aware. ends: local time at which a night is over, noon as a rule.
    """
    local = now.astimezone(zone)
    return local.date() - timedelta(days=local.time() < ends)


def time_zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database. Raises AuditError if there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise AuditError(USAGE, f"no time zone {name!r}: give one as in Europe/Berlin, or UTC") from error


def given_date(text: str) -> date:
    """A date as in 2026-11-24. Raises AuditError for anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise AuditError(USAGE, f"{text!r} is not a date: give one as in 2026-11-24") from error


def given_time(text: str) -> time:
    """A time of day as in 12:00. Raises AuditError for anything else."""
    try:
        return datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise AuditError(USAGE, f"{text!r} is not a time of day: give one as in 12:00") from error
