"""Globs of images or manifests: the folder to list, and the pattern for what lies below it."""

from __future__ import annotations

import re

# A brace alone may be part of a name; around a word it is a field of PathPattern, or a mistaken one.
_WILD = re.compile(r"[*?\[]|\{[A-Za-z_]\w*[:}]")


def split_glob(uri: str) -> tuple[str, str] | None:
    """The folder above the first folder or file name with a wildcard, and the pattern below it; None without wildcard.

    The pattern is one of ``PathPattern`` with ``wildcards``. A bucket or host has no wildcard, and an http address none
    at all, because nothing can be listed there.
    """
    head, separator, rest = uri.rpartition("://")
    if head.lower() in ("http", "https"):
        return None
    found = _WILD.search(rest)
    if found is None:
        return None
    end = rest.rfind("/", 0, found.start()) + 1
    base, pattern = rest[:end], rest[end:]
    if separator and head.lower() != "file" and not base.strip("/"):
        return None
    return head + separator + (base.rstrip("/") or "/" * base.startswith("/") or "."), pattern
