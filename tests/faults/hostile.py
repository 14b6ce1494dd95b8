"""A manifest by an enemy: every kind of bad row, as many as wanted, as CSV or JSON Lines. The kinds come in turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A kind of row: from its number to the line in CSV and in JSON Lines, and the problem that it must get (None: good).
Line = Callable[[int], bytes]
LONG = "x" * 5000


def _json(uri: Any, **more: Any) -> bytes:
    return json.dumps({"uri": uri, **more}).encode()


KINDS: dict[str, tuple[Line, Line, str | None]] = {
    "good": (lambda i: b"images/%d.png,L1" % i, lambda i: _json(f"images/{i}.png"), None),
    "good too": (lambda i: b"s3://plant/%d.jpg," % i, lambda i: _json(f"s3://plant/{i}.jpg"), None),
    "the same again": (lambda i: b"images/0.png,L1", lambda i: _json("images/0.png"), "duplicate"),
    "the one before again": (
        lambda i: b"s3://plant/%d.jpg," % (i - 2),
        lambda i: _json(f"s3://plant/{i - 2}.jpg"),
        "duplicate",
    ),
    "empty": (lambda i: b",L1", lambda i: _json("", line="L1"), "empty_uri"),
    "blanks": (lambda i: b"   ,L1", lambda i: _json("   "), "empty_uri"),
    "none": (lambda i: b'"",', lambda i: _json(None), "empty_uri"),
    "Latin-1": (lambda i: b"M\xfcller-%d.png,L1" % i, lambda i: b'{"uri": "M\xfcller-%d.png"}' % i, "not_utf8"),
    "half a surrogate": (
        lambda i: b"\xed\xa0\x80-%d.png,L1" % i,
        lambda i: b'{"uri": "\\ud800-%d.png"}' % i,
        "not_utf8",
    ),
    "bytes of all kinds": (
        lambda i: b"\x80\xff\xfe%d,\xc3" % i,
        lambda i: b'{"uri": "\x80\xff\xfe%d"}' % i,
        "not_utf8",
    ),
    "very long": (lambda i: b"%d-%s,L1" % (i, LONG.encode()), lambda i: _json(f"{i}-{LONG}"), "uri_too_long"),
    "NUL": (lambda i: b"a\0%d.png,L1" % i, lambda i: _json(f"a\0{i}.png"), "control_character"),
    "line break": (lambda i: b'"a\n%d.png",L1' % i, lambda i: _json(f"a\n{i}.png"), "control_character"),
    "escape sequence": (
        lambda i: b"\x1b[2J\x1b]0;%d\x07,L1" % i,
        lambda i: _json(f"\x1b[2J\x1b]0;{i}\x07"),
        "control_character",
    ),
    "too many fields": (lambda i: b"%d.png,L1,more" % i, lambda i: b'{"uri": "%d.png"' % i, "malformed_row"),
    "too few fields": (lambda i: b"only-%d.png" % i, lambda i: b"[%d]" % i, "malformed_row"),
    "open quote": (lambda i: b'"%d.png"x,L1' % i, lambda i: b'{"uri": "%d.png", "uri": "b"}' % i, "malformed_row"),
    "deep": (lambda i: b"%d.png,%s," % (i, b'""' * 50), lambda i: b"[" * 500 + b"]" * 500, "malformed_row"),
    # Names that lead elsewhere are good rows of a manifest; the allow-list refuses them when they are fetched.
    "elsewhere": (lambda i: b"../../%d/etc/passwd," % i, lambda i: _json(f"../../{i}/etc/passwd"), None),
    "metadata": (
        lambda i: b"http://169.254.169.254/%d," % i,
        lambda i: _json(f"http://169.254.169.254/{i}"),
        None,
    ),
    "code": (lambda i: b"'; DROP TABLE rows; --%d," % i, lambda i: _json(f"'; DROP TABLE rows; --{i}"), None),
    "right to left": (
        lambda i: f"\u202egnp.{i}\U0001f4a5,".encode(),
        lambda i: _json(f"\u202egnp.{i}\U0001f4a5"),
        None,
    ),
}


def expected(rows: int) -> list[str | None]:
    """The problem of each row. Row 0 is good, so that every "the same again" is its duplicate."""
    codes = [code for _, _, code in KINDS.values()]
    return [codes[i % len(codes)] for i in range(rows)]


def write_manifest(path: Path, format: str, rows: int) -> None:
    """So many rows of all kinds in turn."""
    which = 0 if format == "csv" else 1
    lines = [kind[which] for kind in KINDS.values()]
    with open(path, "wb") as file:
        if format == "csv":
            file.write(b"uri,line\n")
        file.writelines(_ended(lines[i % len(lines)](i) for i in range(rows)))


def _ended(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield line + b"\n"
