"""The folder that travels with a job: what of it stays here, and whether Ray takes so much."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jobs.audit import exits
from jobs.audit.exits import AuditError

# What of a folder stays here in any case, as in .gitignore: keys, models, and what tools leave behind. Ray leaves out
# .git, .venv and __pycache__, and what the folder's .gitignore names.
STAYS = (
    *(".env", ".env.*", ".aws/", ".ray/", ".ssh/", "*.pem", "*.key", "auth_token"),
    *("*.pth", "demo-output/", "bench-output/"),
    *(".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", "*.egg-info/"),
)
MIB = 2**20
MOST_BYTES = 100 * MIB  # what a dashboard takes in one request
_SHOWN = 4


def check_folder(folder: str, stays: Sequence[str], most: int = MOST_BYTES) -> None:
    """Raises AuditError if the folder is none, or too large to be sent; then it names the largest things in it.

    stays: patterns of what is not sent. most: bytes.
    """
    # The very functions that choose what is packed: patterns of .gitignore are no matter for code of our own.
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE, get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    root = Path(folder).absolute()
    if not root.is_dir():
        raise AuditError(exits.USAGE, f"--working-dir {folder}: there is no such folder")
    sizes: Counter[str] = Counter()

    def weigh(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(root).parts[0]] += path.stat().st_size

    patterns = [*get_runtime_env_default_excludes(), *stays]
    with_gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    _dir_travel(root, [_get_excludes(root, patterns)], weigh, with_gitignore, logging.getLogger(__name__))
    if sizes.total() > most:
        largest = ", ".join(f"{name} ({size / MIB:,.1f} MiB)" for name, size in sizes.most_common(_SHOWN))
        raise AuditError(
            exits.USAGE,
            f"--working-dir {folder}: {sizes.total() / MIB:,.1f} MiB are more than the {most / MIB:,.1f} MiB that a "
            f"cluster takes. Largest: {largest}. Leave out what the job does not need with --exclude or .gitignore; "
            "models and images belong on storage that every node sees",
        )
