"""Text of others as it is shown to people."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text in its lines, with everything that cannot be seen escaped: what a terminal would obey, and what turns
    the direction in which a line is read."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
