"""What categories, lines and cameras are called in a report. Their names come from manifests, and may be missing."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.report.shifts import Shift
from manifests.schema import printable

LONGEST, ENDS = 60, 28


def shown(name: str, missing: str = "none") -> str:
    """A name as text of one line, a long one without its middle. missing: what is said where there is none."""
    if len(name) > LONGEST:
        name = f"{name[:ENDS]}...{name[-ENDS:]}"
    return printable(name, 2 * LONGEST) if name else f"({missing})"


def of_group(kind: str, names: Sequence[str]) -> str:
    """Such as ``of line L3`` or ``of camera L3 / top``."""
    if kind == "all":
        return "of all images"
    return f"of {kind} {group(names)}"


def group(names: Sequence[str]) -> str:
    """The names of a group in one word."""
    return " / ".join(shown(name) for name in names) or "all images"


def of_shift(one: Shift) -> str:
    """Such as ``pill on line L3, median 1.30 times that of the earlier nights (PSI 0.41, D 0.29)``."""
    place = "" if one.line is None else f" on line {shown(one.line)}"
    of = "calibration" if one.against == "calibration" else "the earlier nights"
    return (
        f"{shown(one.category)}{place}, median {one.ratio:.2f} times that of {of} "
        f"(PSI {one.index:.2f}, D {one.distance:.2f})"
    )
