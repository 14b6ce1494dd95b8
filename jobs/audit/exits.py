"""The exit codes of the audit. Schedulers must not retry 2, 3 and 5."""

from __future__ import annotations

from typing import Any

COMMITTED = 0
FAILED = 1
USAGE = 2
BUDGET_EXCEEDED = 3
NO_ACCESS = 4
SELF_TEST = 5
LOCKED = 6
INTERRUPTED = 130

MEANING = {
    COMMITTED: "committed, failures within the error budget",
    FAILED: "unexpected failure, a rerun resumes",
    USAGE: "bad arguments, configuration, manifest or bundle, nothing started",
    BUDGET_EXCEEDED: "committed, error budget exceeded",
    NO_ACCESS: "no access to storage, a rerun resumes",
    SELF_TEST: "the bundle failed its self-test, nothing scored",
    LOCKED: "another process holds this run",
    INTERRUPTED: "interrupted, a rerun resumes",
}


class AuditError(Exception):
    """An audit that ends here, with the code to exit with and what a person should do."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[AuditError], tuple[Any, ...]]:
        return type(self), (self.code, self.message)


class NothingNew(AuditError):
    """An audit of what is new that has nothing to do, as on a night after a day without work. Nothing was written."""

    def __init__(self, message: str):
        super().__init__(COMMITTED, message)

    def __reduce__(self) -> tuple[type[AuditError], tuple[Any, ...]]:
        return NothingNew, (self.message,)


class Stalled(AuditError):
    """A run in which nothing moved any more."""

    def __init__(self, message: str):
        super().__init__(FAILED, message)

    def __reduce__(self) -> tuple[type[AuditError], tuple[Any, ...]]:
        return Stalled, (self.message,)
