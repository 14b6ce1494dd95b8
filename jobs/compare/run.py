"""Compare two runs: which question they can answer, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.compare.gate import NO_LIMITS, Gate, Limits
from jobs.compare.histograms import Histogram, Point, histograms, points
from jobs.compare.images import SameImages, pair, same_images
from jobs.compare.provenance import Differing, differing
from jobs.compare.rates import TwoNights, two_nights
from jobs.compare.side import Loaded, Side, load, open_side
from jobs.database import results_database

Question = Literal["images", "rates"]


@dataclass(frozen=True)
class Settings:
    """What is asked. a, b: folders of runs. version_a, version_b: of their results, None for the published ones.
    question: None for the one that fits. show: images that changed most, at most. limits: of the gate. drawn: whether a
    page will want what figures are drawn from."""

    a: str
    b: str
    version_a: int | None = None
    version_b: int | None = None
    question: Question | None = None
    show: int = 12
    limits: Limits = NO_LIMITS
    drawn: bool = False


@dataclass(frozen=True)
class Comparison:
    """What was found. shared: images that are in both; asked: whether the question was, or was chosen by them.

    images or nights: of the two, the answer to the question. histograms, points: what figures are drawn from.
    """

    a: Side
    b: Side
    loaded_a: Loaded
    loaded_b: Loaded
    shared: int
    question: Question
    asked: bool
    differing: list[Differing]
    images: SameImages | None
    nights: TwoNights | None
    gate: Gate | None
    histograms: dict[str, Histogram]
    points: list[Point]

    @property
    def code(self) -> int:
        """The exit code."""
        return exits.COMMITTED if self.gate is None or self.gate.within else exits.BUDGET_EXCEEDED


def compare(settings: Settings) -> Comparison:
    """Compare two runs; nothing is written. Raises AuditError, StorageAccessError."""
    a, b = open_side(settings.a, settings.version_a), open_side(settings.b, settings.version_b)
    with results_database() as connection:
        loaded_a, loaded_b = load(connection, "a", a), load(connection, "b", b)
        shared = pair(connection)
        question = settings.question or _fitting(loaded_a, loaded_b, shared)
        if question == "images" and not shared:
            raise AuditError(
                exits.USAGE, f"no image of {a.folder.uri} is in {b.folder.uri}: compare them with --as rates"
            )
        images = same_images(connection, settings.show) if question == "images" else None
        nights = two_nights(connection) if question == "rates" else None
        return Comparison(
            a=a,
            b=b,
            loaded_a=loaded_a,
            loaded_b=loaded_b,
            shared=shared,
            question=question,
            asked=settings.question is not None,
            differing=differing(a, loaded_a, b, loaded_b),
            images=images,
            nights=nights,
            gate=settings.limits.judge(images, nights),
            histograms=histograms(connection) if nights is not None and settings.drawn else {},
            points=points(connection) if images is not None and settings.drawn else [],
        )


def _fitting(a: Loaded, b: Loaded, shared: int) -> Question:
    """Half of the smaller run: a canary may score a sample of the other's images."""
    return "images" if shared and 2 * shared >= min(a.rows, b.rows) else "rates"
