"""What two sides were made with, as far as it differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from jobs.compare.side import Loaded, Side

FILTERS = ("where", "sample", "since", "limit")


@dataclass(frozen=True)
class Differing:
    """One thing that is not the same, as text; None where a side does not have it."""

    what: str
    a: str | None
    b: str | None


def differing(a: Side, loaded_a: Loaded, b: Side, loaded_b: Loaded) -> list[Differing]:
    """What may make the results differ: models, precision, thresholds, settings, filters, code, manifest, machine.

    Thresholds are those of the rows, so one of a category that only one side has rows of says nothing.
    """
    both = loaded_a.thresholds.keys() & loaded_b.thresholds.keys()
    of_a, of_b = dict(_provenance(a, loaded_a, both)), dict(_provenance(b, loaded_b, both))
    return [
        Differing(what, of_a.get(what), of_b.get(what)) for what in {**of_a, **of_b} if of_a.get(what) != of_b.get(what)
    ]


def _provenance(side: Side, loaded: Loaded, categories: Set[str]) -> Iterator[tuple[str, str]]:
    parts, record = side.record.parts, side.record
    yield from _given({"bundle": parts.get("bundle"), "precision": parts.get("precision")})
    for category in sorted(categories):
        yield f"threshold of {category}", ", ".join(map(repr, loaded.thresholds[category]))
    rules = [one["rule"] for one in record.rethresholds if one["version"] <= side.version]
    yield from _given({"thresholds set by": f"rethreshold {rules[-1]}" if rules else "the bundle"})
    settings = parts.get("settings", {})
    yield from _given({f"filter {name}": settings.get(name) for name in FILTERS})
    yield from _given({"left out by filters": record.frozen.get("left_out") or None})
    yield from _given({f"setting {name}": value for name, value in settings.items() if name not in FILTERS})
    yield from _given({f"code: {name}": value for name, value in parts.get("code", {}).items()})
    later = [change["to"].get("source") for change in record.code_changes]
    yield from _given({"code: finished by": later or None})
    yield from _given({"manifest": record.manifest, "manifest digest": parts.get("manifest")})
    yield from _given({"device": record.device, "CPU": record.cpu, "schema version": loaded.schema_version})


def _given(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if value is not None:
            yield name, value if isinstance(value, str) else json.dumps(value, sort_keys=True)
