"""What a person types becomes statements."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from jobs.query.prompt import is_whole, statements


def typed(lines: Iterable[str | type[BaseException]]) -> tuple[list[str], list[str]]:
    """The statements, and the prompts before each line."""
    remaining, prompts = iter(lines), []

    def ask(prompt: str) -> str:
        prompts.append(prompt.strip())
        line = next(remaining, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return list(statements(ask)), prompts


def test_a_statement_ends_with_a_semicolon() -> None:
    found, prompts = typed(["SELECT 1,", "  2;", "", "SELECT 3; SELECT 4;", "\\q", "SELECT 5;"])
    assert found == ["SELECT 1,\n  2;", "SELECT 3; SELECT 4;"]
    assert prompts == ["results>", "......>", "results>", "results>", "results>"]


@pytest.mark.parametrize("word", ["\\q", "exit", "QUIT;", "exit;"])
def test_words_that_end(word: str) -> None:
    assert typed([word, "SELECT 1;"])[0] == []


def test_an_interrupt_begins_anew_and_the_end_ends() -> None:
    assert typed(["SELECT 1", KeyboardInterrupt, "SELECT 2;", "SELECT"])[0] == ["SELECT 2;"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1;", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1 -- done;", False),
        ("SELECT 'a;", False),
        ("SELECT 'it''s;';", True),
        ('SELECT "a;', False),
        ("/* a;", False),
        ("SELEC 1;", True),
        ("", False),
        (";", True),
    ],
)
def test_semicolons_in_strings_and_comments_end_nothing(text: str, whole: bool) -> None:
    assert is_whole(text) is whole
