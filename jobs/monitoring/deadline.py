"""By when a night must be done, in the site's time zone. Prometheus knows UTC only, so the times come as metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobs.audit import exits
from jobs.audit.exits import AuditError


@dataclass(frozen=True)
class Deadline:
    """A time of day, such as 06:00, in a time zone."""

    at: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, at: str, zone: str) -> Deadline:
        """``06:00`` and a name such as ``Europe/Berlin``. Raises AuditError for anything else."""
        try:
            moment = datetime.strptime(at, "%H:%M").time()
        except ValueError as error:
            raise AuditError(exits.USAGE, f"--deadline {at}: write the time of day as HH:MM, such as 06:00") from error
        try:
            return cls(moment, ZoneInfo(zone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise AuditError(
                exits.USAGE, f"--time-zone {zone}: there is no such time zone; write a name such as Europe/Berlin"
            ) from error

    def passed(self, now: float) -> tuple[float, float]:
        """The last two deadlines that have passed, the earlier one first; now and they: seconds since the epoch.

        A run of the night that ended with the later one began after the earlier one. They are a day of the calendar
        apart: 23 or 25 hours where clocks are changed.
        """
        today = datetime.fromtimestamp(now, UTC).astimezone(self.zone).date()
        days = (today - timedelta(days=ago) for ago in (2, 1, 0))
        ends = [datetime.combine(day, self.at, self.zone).timestamp() for day in days]
        return (ends[1], ends[2]) if ends[2] <= now else (ends[0], ends[1])
