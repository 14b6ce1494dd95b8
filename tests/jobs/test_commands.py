"""How commands that look at results end where they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.run import exit_code
from jobs.cli import app
from jobs.storage import filesystem
from tests.jobs.compare.hand import by_hand, row


def ran(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


ODD = "foo://plant/audit"
RUN = f"{ODD}/runs/2026-03-01/audit"


@pytest.mark.parametrize(
    "words",
    [
        ("report", RUN),
        ("compare", RUN, RUN),
        ("show", "abcd", "--run", RUN),
        ("sql", "--output", ODD, "-e", "SELECT 1"),
        ("verify", RUN),
        ("retry-failed", "--run", RUN),
        ("rethreshold", "--run", RUN, "--threshold", "conformal:0.1"),
    ],
    ids=lambda words: words[0],
)
def test_a_scheme_that_nothing_can_read_is_a_bad_argument(words: tuple[str, ...]) -> None:
    done = ran(*words)
    assert done.exit_code == exits.USAGE, done.output
    assert "no storage for scheme 'foo'" in done.output and "Traceback" not in done.output


def test_a_bucket_that_is_not_there_is_no_access(s3: str) -> None:
    done = ran("sql", "--output", "s3://no-such-bucket/audit", "-e", "SELECT 1")
    assert done.exit_code == exits.NO_ACCESS and "the bucket does not exist" in done.output


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    run = by_hand(str(tmp_path), "a", [row("x", 0.5)])
    done = ran("compare", run, run, "--html", str(tmp_path))
    assert done.exit_code == exits.FAILED
    assert "error: IsADirectoryError" in done.output and str(tmp_path) in done.output.replace("\n", "")


def test_the_exit_code_of_an_audit_whose_storage_nothing_can_read() -> None:
    with pytest.raises(ValueError, match="no storage for scheme") as caught:
        filesystem(ODD)
    assert exit_code(caught.value) == exits.USAGE
    assert exit_code(AuditError(exits.LOCKED, "")) == exits.LOCKED
