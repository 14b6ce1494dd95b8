"""How a command ends: what went wrong is told, and becomes an exit code."""

from __future__ import annotations

from collections.abc import Callable

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.storage_errors import NoStorage, StorageAccessError
from jobs.terminal import complain


def ended(work: Callable[[], int | None]) -> int:
    """Run the work of a command; returns its exit code: the work's own, or 0 if it has none."""
    try:
        return work() or exits.COMMITTED
    except AuditError as error:
        complain(error.message)
        return error.code
    except StorageAccessError as error:
        complain(str(error))
        return exits.NO_ACCESS
    except NoStorage as error:
        complain(str(error))
        return exits.USAGE
    except BrokenPipeError:  # whoever reads the answer has seen enough
        raise
    except OSError as error:  # of this machine's disk: full, no folder, a folder in the place of a file
        complain(f"{type(error).__name__}: {error}")
        return exits.FAILED
