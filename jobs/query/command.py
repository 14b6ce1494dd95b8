"""``line-audit sql``: one query, a file of them, or a prompt, over the committed runs of an output."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass

from jobs.audit import exits
from jobs.audit.committed import committed_runs
from jobs.audit.exits import AuditError
from jobs.commands import ended
from jobs.query.prompt import statements
from jobs.query.session import Answer, Session, open_session
from jobs.query.show import show
from jobs.query.variables import none_committed
from jobs.query.views import VIEWS, script
from jobs.storage import read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, console, note
from jobs.uris import normal
from manifests.schema import printable

_PLAIN = re.compile(r"[\w./:=@%+,-]+")  # what a command of DuckDB's own command line takes without quotes


@dataclass(frozen=True)
class Asked:
    """What the command is asked. execute: SQL; file: with SQL; neither of them: a prompt, or standard input.

    format: of answers: table, csv, json or markdown; None for a table on a terminal, CSV elsewhere. stats: tell seconds
    and what was read. write_views: where the views go as a file, and then nothing is queried.
    """

    output: str
    execute: str | None = None
    file: str | None = None
    format: str | None = None
    stats: bool = False
    write_views: str | None = None


def sql_command(asked: Asked) -> int:
    """Answer; returns the exit code: 0, 2 usage, no committed run or what DuckDB refuses, 4 storage."""
    return ended(lambda: _run(asked))


def _run(asked: Asked) -> int | None:
    if sum(one is not None for one in (asked.execute, asked.file, asked.write_views)) > 1:
        raise AuditError(exits.USAGE, "give one of --execute, --file and --write-views")
    output = normal(asked.output)
    if asked.write_views is not None:
        return _write_views(output, asked.write_views)
    sql = asked.execute if asked.file is None else _read(asked.file)
    try:
        with open_session(output) as session:
            for doubt in session.doubts:
                note(doubt)
            if sql is not None:
                return _answer(session, sql, asked)
            return _prompt(session, asked) if sys.stdin.isatty() else _answer(session, sys.stdin.read(), asked)
    except BrokenPipeError:  # head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.COMMITTED
    except KeyboardInterrupt:
        complain("interrupted")
        return exits.INTERRUPTED


def _write_views(output: str, target: str) -> int:
    text = script(output)
    if not committed_runs(output, last=1):
        raise none_committed(output)
    write_bytes(normal(target), text.encode())
    shown = target if _PLAIN.fullmatch(target) else json.dumps(target, ensure_ascii=False)
    console.print(f"in DuckDB's own command line: .read {shown}", markup=False, soft_wrap=True)
    return exits.COMMITTED


def _read(file: str) -> str:
    try:
        return read_bytes(normal(file)).decode("utf-8-sig")
    except FileNotFoundError:
        raise AuditError(exits.USAGE, f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise AuditError(exits.USAGE, f"{file}: is a folder; give a file with SQL") from None
    except UnicodeDecodeError as error:
        raise AuditError(exits.USAGE, f"{file}: not UTF-8 ({error})") from None


def _prompt(session: Session, asked: Asked) -> int:
    width = max(map(len, VIEWS))
    for name, meaning in VIEWS.items():
        console.print(f"{name:<{width}}  {meaning}", markup=False, soft_wrap=True)
    console.print(r"End a statement with ;  DESCRIBE results; lists columns, \q ends.", markup=False, soft_wrap=True)
    for sql in statements():
        try:
            _answer(session, sql, asked)
        except (AuditError, StorageAccessError) as error:
            complain(str(error))
        except KeyboardInterrupt:
            complain("interrupted")
    return exits.COMMITTED


def _answer(session: Session, sql: str, asked: Asked) -> int:
    format = asked.format or ("table" if sys.stdout.isatty() else "csv")
    try:
        for answer in session.answers(sql):
            count = show(format, answer.columns, answer.rows) if answer.columns else 0
            sys.stdout.flush()
            if asked.stats:
                _tell(answer, count)
    except AuditError as error:
        # What DuckDB quotes may come from a table.
        raise AuditError(error.code, "\n".join(printable(line) for line in error.message.splitlines())) from None
    return exits.COMMITTED


def _tell(answer: Answer, count: int) -> None:
    read = answer.reads
    console.print(
        f"{count:,} rows, {answer.seconds:.2f} s, {read.bytes / 1e6:,.2f} MB read in {read.requests:,} requests",
        markup=False,
        soft_wrap=True,
    )
