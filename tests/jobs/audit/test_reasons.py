"""What a person is told of an error that comes from a worker."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.run import reason_of
from jobs.storage_errors import StorageAccessError

REFUSED = "s3://line: credentials refused (NoCredentialsError); renew them and run again"
ADVICE = (
    "Failed to apply UDF transform after 1/1 attempts (total backoff 0.0s).\n"
    "To change retry attempts, backoff, or which errors are retried, configure `ray.data.DataContext`"
)
PAGE = 'ray::MapBatches(load_shard)() (pid=1)\n  File "x.py", line 1\n\nValueError: the last line'


class Wrapped(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, cause: BaseException):
        super().__init__(PAGE)
        self.cause = cause


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Wrapped(StorageAccessError(f"{REFUSED}\n{ADVICE}")), REFUSED),
        (StorageAccessError(REFUSED), REFUSED),
        (AuditError(exits.USAGE, "two\nlines"), "two\nlines"),
        (RayTaskError("load_shard", PAGE, ValueError("x")), "x"),
        (KeyError(), "KeyError"),
        (Wrapped(ValueError()), "ValueError"),
    ],
)
def test_the_reason_is_what_was_raised_without_the_page_before_it_and_the_advice_behind(
    error: BaseException, said: str
) -> None:
    assert reason_of(error) == said


def test_of_a_page_without_its_cause_the_last_line_is_told() -> None:
    error = RayTaskError("load_shard", f"{PAGE}\n\n{ADVICE}", ValueError("x"))
    error.cause = None  # as of one that could not be pickled
    assert reason_of(error) == "ValueError: the last line"
