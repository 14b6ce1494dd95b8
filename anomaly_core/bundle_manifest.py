"""The content of bundle.json: what the files of a bundle are, where they come from, and the SHA-256 of each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from anomaly_core.forms import BackboneForm, Precision, ScoreName
from anomaly_core.preprocess import MEAN, STD

ROUTER_FILE = "best_classifier.pth"
THRESHOLDS_FILE = "thresholds.json"
BACKBONE_FILE = "backbone.pth"
BUNDLE_FILE = "bundle.json"
KNOWN_FILE = "known.pth"
# What the last layer of the router sees of the training images, by category; for adding categories, as features_file.
ROUTER_FEATURES_FILE = "features/router.pth"
# What a training was asked; there from its start on, in a folder that its figures are in too.
TRAINING_FILE = "training/settings.json"
# A category becomes a folder of the results, so its name is held to characters that mean nothing to any file system.
CATEGORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

# Scores are float32, and pictures divide by the threshold in it.
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


class BundleError(ValueError):
    """A bundle that must not be used; the message names the file and the remedy."""


def cae_file(category: str) -> str:
    """The file of a category's autoencoder."""
    return f"cae_{category}.pth"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneInfo(_Record):
    """The ResNet-50: its form, where its weights came from, and the SHA-256 of backbone.pth."""

    form: BackboneForm
    source: str
    sha256: str


class RouterInfo(_Record):
    """The router: architecture, where its first weights came from, and what training saw.

    added: categories by which its last layer was extended later.
    """

    architecture: Literal["resnet18"] = "resnet18"
    source: str
    frozen_norms: int = 0
    losses: list[float] = Field(default_factory=list)
    training_accuracy: float | None = None
    seconds: float = 0.0
    added: list[str] = Field(default_factory=list)


class PreprocessingInfo(_Record):
    """How a file becomes the tensor: what the calibration used, and what every later image must use."""

    size: Literal[224] = 224
    resize: Literal["pillow_bilinear_8bit"] = "pillow_bilinear_8bit"
    exif_orientation: bool = True
    jpeg_reduced: bool = False
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    @model_validator(mode="after")
    def _as_in_this_version(self) -> PreprocessingInfo:
        if (self.mean, self.std) != (MEAN, STD):
            raise ValueError("this version normalises with the ImageNet mean and standard deviation only")
        return self


class CategoryInfo(_Record):
    """Training figures of one category. calibration_scores: of normal images, sorted ascending. seconds: of all its
    tasks, added up, also of those that ran side by side.

    folds: of the autoencoders that scored them, each those that it had not seen; 0 if it was the one that is kept.
    promised_false_rejects: what the threshold's rule promises from so many scores; None if it promises nothing.
    """

    images: int
    images_sha256: str
    losses: list[float]
    best_epoch: int
    seconds: float
    threshold: float
    calibration_scores: list[float]
    folds: int = 0
    promised_false_rejects: float | None = None


class ReferenceImage(_Record):
    """An image with what the bundle made of it at training; see ``self_test``.

    score: of the category's autoencoder, wherever the router sends the image. routed: whether it sends it to the
    category, and with which confidence to the category that it does send it to. tolerance: how far a score may be from
    this one, as a share of it, and a confidence from this one, absolute.
    """

    category: str
    number: int = Field(ge=0)
    routed: bool
    confidence: float = Field(ge=0, le=1)
    score: float = Field(gt=0, allow_inf_nan=False)
    tolerance: float = Field(gt=0, lt=1)

    @property
    def file(self) -> str:
        """Its file in the bundle."""
        return f"references/{self.category}/{self.number}"


class BundleManifest(_Record):
    """The content of bundle.json. references: none in bundles that were written before there were any.

    calibrated_on: held_out_images are those that an autoencoder has not seen, held out or in another fold.
    """

    schema_version: Literal[1] = 1
    created_by: str
    created_at: str
    categories: list[str]
    backbone: BackboneInfo
    router: RouterInfo
    preprocessing: PreprocessingInfo = PreprocessingInfo()
    score: ScoreName = "top10_mean_224"
    precision: Precision
    recipe: dict[str, Any]
    threshold_rule: str
    calibrated_on: Literal["training_images", "held_out_images"]
    training: dict[str, CategoryInfo]
    references: list[ReferenceImage] = Field(default_factory=list)
    files: dict[str, str]

    @field_validator("categories")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        return check_categories(value)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> BundleManifest:
        if sorted(self.training) != sorted(self.categories):
            raise ValueError("training figures and categories do not name the same categories")
        if self.references and {one.category for one in self.references} != set(self.categories):
            raise ValueError("reference images and categories do not name the same categories")
        if self.files.get(BACKBONE_FILE) != self.backbone.sha256:
            raise ValueError("two SHA-256 for the backbone")
        return self

    def to_bytes(self) -> bytes:
        """The bytes of bundle.json, with the digest of everything else in it."""
        return _canonical({**self._content(), "digest": self.digest})

    @property
    def digest(self) -> str:
        """SHA-256 over everything in it: names the bundle, as each file's SHA-256 is part of it."""
        return sha256(_canonical(self._content()))

    def _content(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        # A bundle that was written before there were these keeps its digest.
        if not self.references:
            del content["references"]
        if not self.router.added:
            del content["router"]["added"]
        for figures in content["training"].values():
            for name in ("folds", "promised_false_rejects"):
                if not figures[name]:
                    del figures[name]
        return content

    @classmethod
    def from_bytes(cls, data: bytes) -> BundleManifest:
        """Parse and check bundle.json. Raises BundleError if it was changed, or is of another version."""
        try:
            content = json.loads(data)
            digest = content.pop("digest")
            unchanged = sha256(_canonical(content)) == digest and _canonical({**content, "digest": digest}) == data
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError, OverflowError) as error:
            raise BundleError(
                f"{BUNDLE_FILE} is not a bundle description ({error}); take the bundle from its source again"
            ) from error
        if not unchanged:
            raise BundleError(f"{BUNDLE_FILE} was changed since it was written; take the bundle from its source again")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BundleError(f"{BUNDLE_FILE}: {where}: {first['msg']}; was it written by a newer version?") from error


def check_categories(names: list[str]) -> list[str]:
    """The names, if each is fit to be a folder and none comes twice. Raises ValueError naming the first that is not."""
    if not names:
        raise ValueError("no categories")
    for name in names:
        if not CATEGORY_NAME.fullmatch(name):
            raise ValueError(f"category name {name!r}: only letters, digits, '_' and '-', at most 64, are allowed")
    if len(set(names)) != len(names):
        raise ValueError(f"a category is named twice: {sorted(n for n in names if names.count(n) > 1)[0]}")
    return names


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def bundle_files(manifest: BundleManifest) -> list[str]:
    """The files that a described bundle must have besides bundle.json to be used."""
    autoencoders = [cae_file(category) for category in manifest.categories]
    known = [KNOWN_FILE] if KNOWN_FILE in manifest.files else []
    weights = [name for name in map(weights_file, manifest.categories) if name in manifest.files]
    references = [one.file for one in manifest.references]
    return [ROUTER_FILE, THRESHOLDS_FILE, BACKBONE_FILE, *autoencoders, *weights, *known, *references]


def weights_file(category: str) -> str:
    """The channel weights of a category's error map, if its recipe has any."""
    return f"weights_{category}.pth"


def features_file(category: str) -> str:
    """The pooled features of a category's training images, for adding categories later; no audit needs them."""
    return f"features/{category}.pth"


def read_thresholds(data: bytes) -> dict[str, float]:
    """The content of thresholds.json: category to threshold. Raises BundleError saying what is wrong with it."""
    try:
        content = json.loads(data, object_pairs_hook=_once)
        if isinstance(content, dict):
            content = {k: float(v) if type(v) is int else v for k, v in content.items()}
    except BundleError:
        raise
    except (ValueError, RecursionError, OverflowError) as error:
        raise BundleError(f"{THRESHOLDS_FILE} is not JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise BundleError(f"{THRESHOLDS_FILE} must be an object of category to threshold")
    for category, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not _LEAST <= value <= _MOST:
            raise BundleError(
                f"{THRESHOLDS_FILE}: the threshold of {category!r} must be a positive number that float32 can hold, "
                f"not {value!r}"
            )
    return {category: float(value) for category, value in content.items()}


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose names Python would let come twice."""
    found: dict[str, Any] = {}
    for category, value in pairs:
        if category in found:
            raise BundleError(f"{THRESHOLDS_FILE} has two thresholds for {category!r}")
        found[category] = value
    return found


def _canonical(content: object) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()
