"""Whether two sides are alike enough: what a canary's exit status says."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.audit import exits
from jobs.audit.config import BudgetError, ErrorBudget
from jobs.audit.exits import AuditError
from jobs.compare.images import SameImages
from jobs.compare.rates import TwoNights

MAX_CHANGED, MAX_RATE_CHANGE = "--max-changed", "--max-rate-change"
_HAIR = 1e-9  # 29 % less 28 % is more than 1 % in binary


@dataclass(frozen=True)
class Gate:
    """A limit, what was found, in words, and whether that is within it."""

    option: str
    limit: str
    found: str
    within: bool


@dataclass(frozen=True)
class Limits:
    """The limits that were asked for. max_changed: decisions of the same images; max_rate_change: share, of two
    nights."""

    max_changed: ErrorBudget | None
    max_rate_change: ErrorBudget | None

    @classmethod
    def parse(cls, max_changed: str | None, max_rate_change: str | None) -> Limits:
        """From what was typed. Raises AuditError."""
        try:
            changed = None if max_changed is None else ErrorBudget.parse(max_changed, MAX_CHANGED)
            moved = None if max_rate_change is None else ErrorBudget.parse(max_rate_change, MAX_RATE_CHANGE)
        except BudgetError as error:
            raise AuditError(exits.USAGE, str(error)) from error
        if moved is not None and moved.share is None:
            raise AuditError(exits.USAGE, f"{MAX_RATE_CHANGE} {max_rate_change}: write a share such as 1% or 0.01")
        return cls(changed, moved)

    def judge(self, images: SameImages | None, nights: TwoNights | None) -> Gate | None:
        """The gate of the question that was answered; None if there are no limits.

        Raises AuditError if the only limit is that of the other question, or there is nothing to judge: what was not
        judged must not look like what passed.
        """
        if images is not None and self.max_changed is not None:
            return _changed(self.max_changed, images)
        if nights is not None and self.max_rate_change is not None:
            return _moved(self.max_rate_change, nights)
        if images is not None and self.max_rate_change is not None:
            raise AuditError(
                exits.USAGE,
                f"{MAX_RATE_CHANGE} is for two nights, and these runs share their images: give {MAX_CHANGED}, or "
                "--as rates",
            )
        if nights is not None and self.max_changed is not None:
            raise AuditError(
                exits.USAGE,
                f"{MAX_CHANGED} is for the same images, and these runs were compared as two nights: give "
                f"{MAX_RATE_CHANGE}, or --as images",
            )
        return None


NO_LIMITS = Limits(None, None)


def _changed(limit: ErrorBudget, images: SameImages) -> Gate:
    changed = images.changed
    if changed.rate is None:
        raise AuditError(exits.USAGE, f"{MAX_CHANGED}: neither run scored any of the shared images; nothing to judge")
    found = f"{changed.count:,} of {changed.of:,} decisions changed ({100 * changed.rate:.4g} %)"
    return Gate(MAX_CHANGED, str(limit), found, not limit.exceeded(changed.count, changed.of))


def _moved(limit: ErrorBudget, nights: TwoNights) -> Gate:
    """The rates of all rows, and those of groups as far as they moved beyond chance: a small group moves with every
    part."""
    judged = [
        (abs(one.difference.change), one)
        for one in nights.rates
        if one.difference.change is not None and (one.dimension == "all" or one.beyond_chance)
    ]
    most, one = max(judged, key=lambda pair: pair[0], default=(0.0, None))
    within = most <= (limit.share or 0.0) + _HAIR
    scored = any(of_all.kind != "failed" and of_all.dimension == "all" for _, of_all in judged)
    if one is None or (within and not scored):
        raise AuditError(exits.USAGE, f"{MAX_RATE_CHANGE}: one of the runs scored no image; nothing to judge")
    where = "all images" if one.dimension == "all" else f"{one.dimension} {one.group or 'not said'}"
    found = f"the largest change is {100 * (one.difference.change or 0):+.4g} points, of {one.kind} in {where}"
    return Gate(MAX_RATE_CHANGE, str(limit), found, within)
