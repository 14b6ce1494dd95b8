"""What is to be submitted: a command of ``line-audit`` with its arguments, checked here as it would be there."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.uris import join, normal

# The commands that compute in Ray's processes. The others compute in their own, which would be on the head.
COMMANDS = ("audit", "retry-failed", "rethreshold", "train", "add-category")


@dataclass(frozen=True)
class Asked:
    """words: the command and its arguments. target: what it works on, such as the URI of a run; None for a dry run.

    stem: what the ids of its jobs begin with, the same for the same target.
    """

    words: tuple[str, ...]
    target: str | None
    stem: str


def asked(root: Any, words: Sequence[str]) -> Asked:
    """The command that ``words`` ask for.

    root: context of the whole command line, a typer.Context. Raises AuditError for a command that is not run on a
    cluster, or that would write into the folder of the job; what is wrong with its options is told as the command tells
    it itself.
    """
    name, *arguments = words
    if name not in COMMANDS:
        raise AuditError(exits.USAGE, f"{name}: commands that run on a cluster are {', '.join(COMMANDS)}")
    options = root.command.get_command(root, name).make_context(name, list(arguments), parent=root).params
    for option in ("output", "run"):
        place = options.get(option)
        if place is not None and "://" not in place and not os.path.isabs(place):
            raise AuditError(
                exits.USAGE,
                f"--{option} {place}: a submitted job stands in a folder that Ray removes; give an absolute path on "
                "storage that every node sees, or an s3:// URI",
            )
    target, parts = _target(options, words)
    digest = hashlib.sha256(target.encode()).hexdigest()[:8]
    dry = bool(options.get("dry_run"))
    stem = "-".join(["dry-run" if dry else name, *parts, digest])
    return Asked(tuple(words), None if dry else target, re.sub(r"[^A-Za-z0-9_-]+", "-", stem))


def _target(options: dict[str, Any], words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """URI of what the command writes, and what to call it; the command itself where its options do not tell."""
    if options.get("run") is not None:
        folder = normal(options["run"])
        return folder, tuple(folder.split("/")[-2:])
    if options.get("output") is None:
        return shlex.join(words), ()
    if "run_date" in options:
        parts = (options["run_date"] or date.today().isoformat(), options["name"] or "audit")
        return join(normal(options["output"]), "runs", *parts), parts
    return normal(options["output"]), ()
