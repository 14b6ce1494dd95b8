"""What a training is asked to do."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from anomaly_core.features import BackboneForm
from anomaly_core.preprocess import Preprocessing
from anomaly_core.training import RECIPES, Recipe
from jobs.uris import normal


class TrainingError(Exception):
    """A training that cannot be done as asked; the message names the thing and the remedy."""


class TrainingConfig(BaseModel):
    """Every setting of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str
    output: str
    recipe: str = "reference"
    categories: tuple[str, ...] = ()
    backbone_weights: str | None = None
    backbone_form: BackboneForm | None = None
    router_weights: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=0, ge=0)
    jpeg_reduced: bool = False

    @field_validator("images", "output")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty")
        return normal(value)

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in RECIPES:
            raise ValueError(f"must be one of {', '.join(sorted(RECIPES))}")
        return value

    @property
    def preprocessing(self) -> Preprocessing:
        """How files are decoded, now and by every audit with the bundle."""
        return Preprocessing(jpeg_reduced=self.jpeg_reduced)

    @property
    def steps(self) -> Recipe:
        """The recipe."""
        return RECIPES[self.recipe]
