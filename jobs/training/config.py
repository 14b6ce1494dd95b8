"""What a training is asked to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from anomaly_core.calibration import ThresholdRule
from anomaly_core.forms import BackboneForm
from anomaly_core.preprocess import Preprocessing
from anomaly_core.training import RECIPES, Recipe
from jobs.uris import normal

# Of a recipe that has none, where a rule needs scores of images that the autoencoder has not seen.
FOLDS = 5


class TrainingError(Exception):
    """A training that cannot be done as asked; the message names the thing and the remedy."""


class TrainingConfig(BaseModel):
    """Every setting of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str
    output: str
    recipe: str = "default"
    categories: tuple[str, ...] = ()
    backbone_weights: str | None = None
    backbone_form: BackboneForm | None = None
    router_weights: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=0, ge=0)
    jpeg_reduced: bool = False
    threshold: str | None = None

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

    @field_validator("threshold")
    @classmethod
    def _rule(cls, value: str | None) -> str | None:
        return None if value is None else str(ThresholdRule.parse(value))

    @property
    def preprocessing(self) -> Preprocessing:
        """How files are decoded, now and by every audit with the bundle."""
        return Preprocessing(jpeg_reduced=self.jpeg_reduced)

    @property
    def steps(self) -> Recipe:
        """The recipe, with the rule for thresholds that was asked for.

        The scores of training images promise nothing, so with a rule that promises something there are folds.
        """
        recipe = RECIPES[self.recipe]
        if self.threshold is None:
            return recipe
        recipe = replace(recipe, threshold_rule=self.threshold)
        promising = ThresholdRule.parse(self.threshold).false_rejects is not None
        return replace(recipe, folds=FOLDS) if promising and recipe.calibrates_on_training_images else recipe
