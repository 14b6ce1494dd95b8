"""Quantities of Kubernetes as numbers."""

from __future__ import annotations

from decimal import Decimal

_UNITS = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str) -> Decimal:
    """As in 500m, 2, 24Gi."""
    digits = text.rstrip("mkMGKi")
    return Decimal(digits) * _UNITS[text[len(digits) :]]
