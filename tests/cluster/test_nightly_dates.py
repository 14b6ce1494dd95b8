"""Which night it is."""

from __future__ import annotations

from datetime import datetime
from datetime import time as day_time
from zoneinfo import ZoneInfo

import pytest

from cluster.nightly.dates import given_date, given_time, night_of, time_zone
from jobs.audit.exits import AuditError

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("moment", "night"),
    [
        ("2026-11-25T02:00+01:00", "2026-11-24"),  # a start in the small hours
        ("2026-11-25T11:59+01:00", "2026-11-24"),  # its last retry
        ("2026-11-25T12:00+01:00", "2026-11-25"),
        ("2026-11-25T23:30+01:00", "2026-11-25"),  # a start before midnight
        ("2026-11-26T00:10+01:00", "2026-11-25"),  # its retry after midnight
        ("2026-11-24T23:30+00:00", "2026-11-24"),  # 00:30 in Berlin
        ("2026-03-01T01:00+01:00", "2026-02-28"),
        ("2027-01-01T02:00+01:00", "2026-12-31"),
        ("2026-03-29T03:30+02:00", "2026-03-28"),  # the night in which the clocks go forward
    ],
)
def test_a_retry_after_midnight_is_the_same_night(moment: str, night: str) -> None:
    assert night_of(datetime.fromisoformat(moment), BERLIN, day_time(12)).isoformat() == night


@pytest.mark.parametrize("text", ["2026-11-31", "24.11.2026", "2026-11-24; rm -rf /", "yesterday", ""])
def test_a_date_is_a_date(text: str) -> None:
    with pytest.raises(AuditError) as error:
        given_date(text)
    assert error.value.code == 2


def test_zones_and_times_are_checked() -> None:
    assert time_zone("Europe/Berlin") == BERLIN and given_time("09:30") == day_time(9, 30)
    for wrong in (lambda: time_zone("Berlin"), lambda: time_zone("../etc/passwd"), lambda: given_time("25:00")):
        with pytest.raises(AuditError):
            wrong()
