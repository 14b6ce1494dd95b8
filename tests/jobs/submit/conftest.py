"""A dashboard that is not Ray's, and submitting to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.submit.asked import Asked
from jobs.submit.command import submit_command
from jobs.submit.follow import Pace
from jobs.submit.settings import Settings
from tests.jobs.submit.dashboard import Fake, serving

ROOT = Path(__file__).resolve().parents[3]
PACE = Pace(poll=0.02, silence=60.0, patience=0.2, drain=10.0, stopping=60.0)
RUN = "s3://plant/audit/runs/2026-11-24/audit"
ASKED = Asked(("audit", "--output", "s3://plant/audit"), RUN, "audit-2026-11-24-1a")
JOB = "audit-2026-11-24-1a-1"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # the address that is given is the one that counts
    before = signal.getsignal(signal.SIGTERM)
    with serving(Fake()) as server:
        yield server
    signal.signal(signal.SIGTERM, before)


def submit(fake: Fake, asked: Asked | None = ASKED, pace: Pace = PACE, **settings: Any) -> int:
    return submit_command(lambda: asked, Settings(fake.url, **settings), pace)
