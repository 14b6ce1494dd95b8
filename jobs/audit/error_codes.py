"""Every word that ``error_code`` of a failed row may be, by ``error_stage``. Programs that count by it rely on the list
being closed."""

from __future__ import annotations

from anomaly_core.preprocess import ImageError
from manifests.schema import PROBLEM_CODES

ERROR_CODES: dict[str, tuple[str, ...]] = {
    "manifest": PROBLEM_CODES,
    "fetch": (
        "missing_object",
        "access_denied",
        "object_changed",
        "throttled",
        "server_error",
        "timeout",
        "connection_cut",
        "fetch_failed",
        "not_allowed",
        "too_many_bytes",
    ),
    "decode": ImageError.CODES,
    "score": ("score_not_finite",),
}
OTHER = "other"  # of a run that another version of the code made


def known(stage: str | None, code: str | None) -> tuple[str, str]:
    """Stage and code of a failed row, each OTHER where this version knows no such pair."""
    if stage in ERROR_CODES and code in ERROR_CODES[stage]:
        return stage, code
    return OTHER, OTHER
