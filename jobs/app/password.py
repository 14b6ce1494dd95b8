"""The password of the app's user: never an argument, which every user of the machine sees in its list of processes."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from jobs.audit import exits
from jobs.audit.exits import AuditError

VARIABLE = "LINE_AUDIT_PASSWORD"


def password_of(user: str, file: str | None) -> str:
    """The password: the first line of a file, else what the environment says, else what is typed. What was in the
    environment is not there any more afterwards, so that no process begun later has it.

    Raises AuditError if there is none, or the file cannot be read.
    """
    given = os.environ.pop(VARIABLE, None)
    if file is not None:
        try:
            given = next(iter(Path(file).read_text().splitlines()), "")
        except (OSError, UnicodeDecodeError) as error:
            raise AuditError(exits.USAGE, f"--password-file {file}: cannot be read ({error})") from error
    elif given is None and sys.stdin.isatty():
        given = getpass.getpass(f"password for {user}: ")
    if not given:
        raise AuditError(
            exits.USAGE, f"--user {user} needs a password: set {VARIABLE}, or name a file with --password-file"
        )
    return given
