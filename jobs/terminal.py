"""What a person at the terminal sees: answers on standard output; progress, warnings and errors on standard error."""

from __future__ import annotations

import sys

from rich.console import Console

console = Console(stderr=True, highlight=False)  # progress, warnings, errors
output = Console(highlight=False)  # what was asked for


def complain(message: str) -> None:
    """An error for the person at the terminal."""
    console.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True)
    sys.stderr.flush()


def note(message: str) -> None:
    """A warning for the person at the terminal."""
    console.print(f"[yellow]note:[/] {_plain(message)}", soft_wrap=True)


def _plain(message: str) -> str:
    return message.replace("[", r"\[")
