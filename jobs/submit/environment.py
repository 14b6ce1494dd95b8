"""Which variables of this environment a job gets. None unless asked, and no secrets.

Ray keeps what a job is started with in the cluster's store, and tells it to everyone who may ask the cluster: only
browsers get it with the values left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jobs.audit import exits
from jobs.audit.exits import AuditError
from manifests.secrets import redacted

_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|WEBHOOK|SIGNATURE|PRIVATE|(API|ACCESS)_?KEY|_KEY$", re.I)
_OF_FILES = ("_FILE", "_PATH")
# As in FSSPEC_S3='{"key": ..., "secret": ...}'.
_SECRET_MEMBERS = re.compile(r"""["'](\w*(secret|token|password)|key)["']\s*:\s*["'][^"']""", re.I)


def travelling(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of these names, with their values in the environment.

    Raises AuditError for one that is not set, or that looks like a secret by its name or its value.
    """
    found: dict[str, str] = {}
    for name in names:
        if name not in environment:
            raise AuditError(exits.USAGE, f"--env {name}: the variable is not set here (its value is taken from here)")
        value = environment[name]
        named = _SECRET_NAMES.search(name) and not name.upper().endswith(_OF_FILES)
        if named or _SECRET_MEMBERS.search(value) or redacted(value) != value:
            raise AuditError(
                exits.USAGE,
                f"--env {name}: it looks like a secret, and Ray tells a job's environment to everyone who may ask the "
                "cluster. Set it in the environment of the head before ray start (in Kubernetes from a Secret), which "
                "every job gets, and for S3 give the nodes a role",
            )
        found[name] = value
    return found
