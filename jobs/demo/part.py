"""What every drawn product offers: a good photograph, and its defects drawn over that photograph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from jobs.demo.scene import Array, View

Flaw = Callable[[Any, Array, np.random.Generator], Array]
"""(part, its good photograph, the defect's random numbers) -> the photograph with the defect."""


class Part(ABC):
    """One piece of a product, with its own texture and small differences, under one view.

    A part draws all its random numbers when it is made, so photographing it again with one thing changed
    (a tooth gone, a tablet gone) changes nothing else.
    """

    category: ClassVar[str]
    flaws: ClassVar[dict[str, Flaw]]

    @abstractmethod
    def __init__(self, view: View, rng: np.random.Generator) -> None: ...

    @abstractmethod
    def photograph(self) -> Array:
        """The part as it lies under the camera, before exposure."""
