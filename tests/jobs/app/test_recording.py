"""Verdicts as the page records them: of the version that was seen, of a run that is there, signed in a bounded way."""

from __future__ import annotations

import pytest

from jobs.app.recording import Recorder, signed
from jobs.app.rows import page, whole_row
from jobs.app.runs import Runs
from jobs.audit.exits import AuditError
from jobs.listing import names
from jobs.storage import delete
from jobs.verdicts import LONGEST_NAME, VerdictLog
from tests.nights import Night, write_night


def test_a_run_that_is_gone_gets_no_verdict(place: str) -> None:
    folder, record = write_night(place, Night("2026-11-24", rows=60))
    run = Runs(place).open("2026-11-24", "audit")
    row = whole_row(run.connection, run.table, page(run.connection, {"decision": ["normal"]}, 1).rows[0]["row"])
    assert row is not None
    recorder = Recorder()
    assert recorder.record(run, row, "escape", "Ada").said == "escape"

    # Decided anew since it was opened: what is said is of the decision that was seen.
    record.rethresholds.append({"version": 2})
    record.save(folder)
    assert recorder.record(run, row, "confirm", "Ada").version == 1
    log = VerdictLog(folder.recorded)
    log.refresh()
    assert [(one.said, one.decision, one.version) for one in log.history(row["image_id"])] == [
        ("escape", "normal", 1),
        ("confirm", "normal", 1),
    ]

    delete(folder.success)
    before = names(folder.recorded)
    with pytest.raises(AuditError, match="run 2026-11-24/audit is gone, or not committed any more: choose another one"):
        recorder.record(run, row, "unsure", "Ada")
    assert names(folder.recorded) == before


def test_who_says_it_is_a_short_text() -> None:
    assert signed(" Ada ", "quality") == "Ada"
    assert signed("  ", "quality") == signed(None, "quality") == "quality"
    assert signed(None, None) is None
    assert signed("\x1b[2J", None) == r"\x1b[2J"
    for who, user in (("x" * 500, None), (None, "x" * 500), ("\x00" * 80, None)):
        name = signed(who, user)
        assert name is not None and len(name) == LONGEST_NAME
