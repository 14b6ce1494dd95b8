"""By when a night must be done, in the site's time zone, summer time included."""

from __future__ import annotations

from datetime import datetime

import pytest

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.monitoring.deadline import Deadline

BERLIN = Deadline.parse("06:00", "Europe/Berlin")


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@pytest.mark.parametrize(
    ("now", "night", "deadline"),
    [
        ("2026-11-24T05:59:59+01:00", "2026-11-22T06:00+01:00", "2026-11-23T06:00+01:00"),
        ("2026-11-24T06:00:00+01:00", "2026-11-23T06:00+01:00", "2026-11-24T06:00+01:00"),
        ("2026-11-24T23:30:00+01:00", "2026-11-23T06:00+01:00", "2026-11-24T06:00+01:00"),
        ("2026-03-29T06:30:00+02:00", "2026-03-28T06:00+01:00", "2026-03-29T06:00+02:00"),  # a night of 23 hours
        ("2026-03-29T04:30:00+00:00", "2026-03-28T06:00+01:00", "2026-03-29T06:00+02:00"),  # an hour before 06:00 UTC+1
        ("2026-10-25T05:30:00+01:00", "2026-10-23T06:00+02:00", "2026-10-24T06:00+02:00"),
        ("2026-10-25T06:00:00+01:00", "2026-10-24T06:00+02:00", "2026-10-25T06:00+01:00"),
    ],
)
def test_the_last_two_deadlines(now: str, night: str, deadline: str) -> None:
    assert BERLIN.passed(at(now)) == (at(night), at(deadline))


def test_the_day_is_that_of_the_site_and_not_of_greenwich() -> None:
    tokyo = Deadline.parse("23:45", "Asia/Tokyo")  # 14:45 UTC
    assert tokyo.passed(at("2026-11-24T14:50+00:00")) == (at("2026-11-23T14:45+00:00"), at("2026-11-24T14:45+00:00"))
    auckland = Deadline.parse("00:10", "Pacific/Auckland")
    assert auckland.passed(at("2026-11-24T11:20+00:00"))[1] == at("2026-11-25T00:10+13:00")


@pytest.mark.parametrize("time", ["6", "25:00", "06:00:00", "six", ""])
def test_times_that_are_none_are_refused(time: str) -> None:
    with pytest.raises(AuditError, match="HH:MM") as caught:
        Deadline.parse(time, "UTC")
    assert caught.value.code == exits.USAGE


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../../etc/passwd", "", "/etc/localtime", "CET+1\0"])
def test_time_zones_that_are_none_are_refused(zone: str) -> None:
    with pytest.raises(AuditError, match="no such time zone"):
        Deadline.parse("06:00", zone)
