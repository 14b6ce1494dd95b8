"""Statements as a person types them, line by line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import duckdb

QUIT = ("\\q", "\\quit", ".quit", ".exit", ".q", "exit", "quit")
# What DuckDB says of a text that goes on.
_UNFINISHED = ("unterminated",)


def statements(ask: Callable[[str], str] = input) -> Iterator[str]:
    r"""Each text that ends with a semicolon, until \q or the end of the input.

    ask: gives the next line, after a prompt; raises EOFError at the end, KeyboardInterrupt to begin anew.
    """
    with suppress(ImportError):  # then lines cannot be edited
        importlib.import_module("readline")
    lines: list[str] = []
    while True:
        try:
            line = ask("......> " if lines else "results> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            lines.clear()
            continue
        if not lines and line.strip().rstrip(";").lower() in QUIT:
            return
        if lines or line.strip():
            lines.append(line)
        if is_whole("\n".join(lines)):
            yield "\n".join(lines)
            lines.clear()


def is_whole(sql: str) -> bool:
    """Whether a text ends with the semicolon of a statement, and not in a string or a comment."""
    *_, last = [(0, None), *((at, kind) for at, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment)]
    if last[1] != duckdb.token_type.operator or sql[last[0]] != ";":
        return False
    try:
        duckdb.extract_statements(sql)
    except duckdb.Error as error:
        return not any(word in str(error) for word in _UNFINISHED)
    return True
