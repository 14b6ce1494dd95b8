"""``line-audit compare``: what it prints and writes, and the exit code."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from jobs.commands import ended
from jobs.compare.gate import Limits
from jobs.compare.page import page
from jobs.compare.run import Comparison, Question, Settings, compare
from jobs.compare.side import Loaded, Side
from jobs.compare.tables import about, sentences, tables
from jobs.storage import write_bytes
from jobs.terminal import print_tables, say
from jobs.uris import normal
from manifests.schema import printable


def compare_command(
    a: str,
    b: str,
    *,
    version_a: int | None = None,
    version_b: int | None = None,
    question: Question | None = None,
    show: int = 12,
    max_changed: str | None = None,
    max_rate_change: str | None = None,
    as_json: bool = False,
    html: str | None = None,
) -> int:
    """Compare two runs; returns the exit code: 0, 1 a damaged table, 2 usage, 3 beyond a limit, 4 storage."""

    def work() -> int:
        limits = Limits.parse(max_changed, max_rate_change)
        found = compare(Settings(a, b, version_a, version_b, question, show, limits, drawn=html is not None))
        if html is not None:
            write_bytes(normal(html), page(found).encode())
        if as_json:
            print(json.dumps(plain(found), indent=2, allow_nan=False))
        else:
            _print(found, html)
        return found.code

    return ended(work)


def plain(found: Comparison) -> dict[str, Any]:
    """The figures for programs."""
    return {
        "a": _side(found.a, found.loaded_a),
        "b": _side(found.b, found.loaded_b),
        "shared": found.shared,
        "question": found.question,
        "asked": found.asked,
        "differing": [asdict(one) for one in found.differing],
        "images": None if found.images is None else asdict(found.images),
        "nights": None if found.nights is None else asdict(found.nights),
        "gate": None if found.gate is None else asdict(found.gate),
        "exit_code": found.code,
    }


def _side(side: Side, loaded: Loaded) -> dict[str, Any]:
    named = {"run": side.folder.uri, "run_id": side.record.run_id, "version": side.version, "table": side.table}
    return {**named, **{field.name: getattr(loaded, field.name) for field in fields(Loaded)}}


def _print(found: Comparison, html: str | None) -> None:
    for name, value in about(found).items():
        _say(f"{name}: {value}")
    print_tables(tables(found, everything=False))
    for sentence in sentences(found):
        _say(sentence)
    if html is not None:
        _say(f"page: {normal(html)}")


def _say(text: str) -> None:
    say(printable(text, 4000))
