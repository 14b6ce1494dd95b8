"""The self-test of a run: the bundle's reference images through the real actors, before any shard.

Every extracting actor scores them when it starts, by its own models and the scorers that it will ask all night, and no
shard goes through the models until all of them have found what the bundle expects.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from anomaly_core.preprocess import ImageError, decode
from jobs.audit import exits
from jobs.audit.exits import AuditError

if TYPE_CHECKING:
    from anomaly_core.bundle import Bundle
    from anomaly_core.bundle_manifest import ReferenceImage

# One image of every category is scored, and further ones up to so many in all: each costs a start what any image costs.
IMAGES = 16
# Extractors that find no place, or whose node is lost while they start, are not waited for longer than this; one that
# comes later is tested before its own first shard.
PATIENCE_SECONDS, POLL_SECONDS = 60.0, 0.1


@dataclass(frozen=True)
class Found:
    """What extractors found. deviation: the largest of a score, as a share of it. problem: the first, None for none.

    images: that each of them scored.
    """

    images: int
    deviation: float
    problem: str | None = None


def chosen(bundle: Bundle) -> list[ReferenceImage]:
    """The reference images that a start scores."""
    in_turn = sorted(bundle.references, key=lambda one: one.number)  # one of every category, another of every category
    return in_turn[: max(IMAGES, len(bundle.categories))]


def reference_shard(bundle: Bundle) -> pa.Table:
    """The chosen images as loaded rows, each declared to be of its category."""
    rows: list[dict[str, Any]] = []
    for one in chosen(bundle):
        row: dict[str, Any] = {"declared_category": one.category, "width": None, "height": None, "pixels": None}
        row |= {"error_stage": None, "error_code": None, "error_message": None}
        try:
            image = decode(bundle.files[one.file], preprocessing=bundle.preprocessing)
        except ImageError as error:
            row |= {"error_stage": "decode", "error_code": error.code, "error_message": error.message}
        else:
            row |= {"width": image.width, "height": image.height, "pixels": image.pixels.tobytes()}
        rows.append(row)
    words = ("declared_category", "error_stage", "error_code", "error_message")
    fields = [*((name, pa.string()) for name in words), ("width", pa.int32()), ("height", pa.int32())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*fields, ("pixels", pa.large_binary())]))


def judge(bundle: Bundle, decided: pa.Table) -> Found:
    """Hold what the actors made of the reference shard against what the bundle expects."""
    from anomaly_core.self_test import deviation, moved  # here: it brings torch, and the registry does without

    largest, problem = 0.0, None
    for reference, row in zip(chosen(bundle), decided.to_pylist(), strict=True):
        if row["score"] is None:
            found: str | None = f"it could not be scored: {row['error_code']}: {row['error_message']}"
        else:
            largest = max(largest, deviation(reference, row["score"]))
            confidence, routed = row["category_confidence"], row["route_agrees"]
            found = moved(reference, routed=routed, confidence=confidence, score=row["score"])
        if found is not None and problem is None:
            problem = _told(bundle, f"reference image {reference.file} of category {reference.category}", found)
    return Found(len(decided), largest, problem)


def await_clearance(registry: Any, extractors: int) -> None:
    """Wait until so many extractors have passed. Raises AuditError if one has not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while check(registry) < extractors and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def check(registry: Any) -> int:
    """How many extractors have passed. Raises AuditError if one has not.

    That of an actor which comes when others have passed and scored, on a node that took the place of a lost one, is the
    node's fault and not the bundle's: then a new start may go well, and exit code 5 would forbid it.
    """
    tested, found, begun = ray.get(registry.self_test.remote())
    if found is not None and found.problem is not None:
        if begun:
            raise AuditError(
                exits.FAILED,
                f"after other actors had passed and scored, {found.problem}. What they scored stands; the same command "
                "resumes the run",
            )
        raise AuditError(exits.SELF_TEST, found.problem)
    return int(tested)


def passed(registry: Any) -> dict[str, Any]:
    """For run.json: images, the largest deviation of a score as a share of it, extractors that scored them; empty if
    there are no reference images."""
    extractors, found, _ = ray.get(registry.self_test.remote())
    if found is None:
        return {}
    return {"images": found.images, "largest_deviation": found.deviation, "extractors": extractors}


def _told(bundle: Bundle, image: str, found: str) -> str:
    import torch

    made = bundle.manifest.created_by if bundle.manifest else "unknown"
    return (
        f"the bundle failed its self-test on {socket.gethostname()}: {image}: {found}. Its weights, a library or the "
        f"device is not what it was trained with (bundle: {made}; here: torch {torch.__version__}): repair that, or "
        "train the bundle again here, and repeat the command"
    )
