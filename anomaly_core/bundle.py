"""The model bundle: a folder with the models, their thresholds and where they come from.

    best_classifier.pth  cae_<category>.pth  thresholds.json     the reference's files, unchanged in format
    backbone.pth                                                 the ResNet-50 layers used: no node needs the internet
    weights_<category>.pth                                       of the channels in the error map, if a recipe has any
    known.pth                                                    what tells unknown products, if it can
    references/<category>/<number>                               images with known scores, for the self-test
    features/<category>.pth                                      of the training images, for adding categories
    bundle.json                                                  what they are, and the SHA-256 of every file

A folder with the reference's files only is accepted; then the backbone is given separately, nothing can be verified,
and the reference's own rules apply. A bundle is read from a mapping of file names to bytes: where the bytes come from
is the caller's business.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from anomaly_core.bundle_manifest import (
    BACKBONE_FILE,
    BUNDLE_FILE,
    KNOWN_FILE,
    ROUTER_FILE,
    THRESHOLDS_FILE,
    BundleError,
    BundleManifest,
    ReferenceImage,
    bundle_files,
    cae_file,
    check_categories,
    read_thresholds,
    sha256,
    weights_file,
)
from anomaly_core.cae import load_cae
from anomaly_core.decision import DecisionRule
from anomaly_core.device import DTYPES
from anomaly_core.features import Backbone, backbone_state, load_backbone
from anomaly_core.forms import BackboneForm, Precision, ScoreName
from anomaly_core.known import Known, load_known
from anomaly_core.preprocess import Preprocessing
from anomaly_core.router import Router, load_router, number_of_classes, router_state
from anomaly_core.scoring import CategoryScorer, RoutingExtractor

NO_REFERENCES = "the bundle has no reference images: an audit starts without a self-test"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been read and checked; models are built from it on demand.

    digest: SHA-256 that names this bundle in results. manifest is None for a folder of the reference's files.
    warnings: what could not be verified, for people.
    """

    files: Mapping[str, bytes]
    categories: tuple[str, ...]
    thresholds: Mapping[str, float]
    digest: str
    form: BackboneForm
    manifest: BundleManifest | None = None
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> bool:
        """True for a folder of the reference's files only."""
        return self.manifest is None

    @property
    def score(self) -> ScoreName:
        """The score that the thresholds were calibrated for."""
        return self.manifest.score if self.manifest else "top10_mean_224"

    @property
    def precision(self) -> Precision | None:
        """The precision of calibration, if the bundle says."""
        return self.manifest.precision if self.manifest else None

    @property
    def preprocessing(self) -> Preprocessing:
        """How files are decoded; the reference does not turn them upright."""
        if self.manifest is None:
            return Preprocessing(exif_orientation=False)
        recorded = self.manifest.preprocessing
        return Preprocessing(recorded.exif_orientation, recorded.jpeg_reduced)

    def decision_rule(self, min_confidence: float) -> DecisionRule:
        """The rule that results of this bundle follow."""
        return DecisionRule(reference=self.reference, min_confidence=min_confidence)

    def calibration_scores(self, category: str) -> list[float]:
        """Scores of normal images that the CAE has not seen, or an empty list where there are none."""
        if self.manifest is None or self.manifest.calibrated_on != "held_out_images":
            return []
        return self.manifest.training[category].calibration_scores

    @property
    def references(self) -> list[ReferenceImage]:
        """The images of the self-test, or an empty list."""
        return self.manifest.references if self.manifest else []

    def without_autoencoders(self) -> Bundle:
        """The same bundle with router, backbone and reference images only, for processes that score nothing."""
        known = [KNOWN_FILE] if KNOWN_FILE in self.files else []
        kept = (ROUTER_FILE, BACKBONE_FILE, *known, *(one.file for one in self.references))
        return replace(self, files={name: self.files[name] for name in kept})

    def extractor(self, device: str, precision: Precision, micro_batch: int | None = None) -> RoutingExtractor:
        """Router and backbone, ready to run."""
        dtype = DTYPES[precision]
        return RoutingExtractor(self._router(device, dtype), self._backbone(device, dtype), device, dtype, micro_batch)

    def scorer(self, category: str, device: str, precision: Precision) -> CategoryScorer:
        """The CAE of a category, ready to run. Raises BundleError naming the file if it does not fit."""
        return category_scorer(self.autoencoder(category), category, self.score, device, precision)

    def autoencoder(self, category: str) -> dict[str, bytes]:
        """The files that ``category_scorer`` builds a category's scorer from."""
        names = (cae_file(category), weights_file(category))
        return {name: self.files[name] for name in names if name in self.files}

    def known(self) -> Known | None:
        """What tells products that the bundle does not know, or None if it cannot. Raises BundleError."""
        if KNOWN_FILE not in self.files:
            return None
        state, count = load_pth(self.files, KNOWN_FILE), len(self.categories)
        known: Known = _fit(KNOWN_FILE, lambda: load_known(state, count))
        return known

    def _router(self, device: str, dtype: torch.dtype) -> Router:
        return _fit(ROUTER_FILE, lambda: load_router(router_state(load_pth(self.files, ROUTER_FILE)), device, dtype))

    def _backbone(self, device: str, dtype: torch.dtype) -> Backbone:
        return _fit(BACKBONE_FILE, lambda: load_backbone(_state(self.files, BACKBONE_FILE), self.form, device, dtype))


def category_scorer(
    files: Mapping[str, bytes], category: str, score: ScoreName, device: str, precision: Precision
) -> CategoryScorer:
    """The scorer of a category from its files: the CAE, and its channel weights if it has any. Raises BundleError
    naming the file."""
    name, dtype = cae_file(category), DTYPES[precision]
    weights = None
    if weights_file(category) in files:
        weights = _state(files, weights_file(category)).get("weights")
        if weights is None:
            raise BundleError(f"{weights_file(category)} has no 'weights'; take the bundle from its source again")
    cae = _fit(name, lambda: load_cae(_state(files, name), device, dtype, weights))
    return CategoryScorer(cae, score, device, dtype)


def load_bundle(
    files: Mapping[str, bytes], *, backbone: Mapping[str, torch.Tensor] | None = None, form: BackboneForm | None = None
) -> Bundle:
    """Check a bundle's files and return it. Everything is verified before anything is built from it.

    files: name to bytes. backbone and form: the ResNet-50 for a folder of the reference's files, which has none.

    Raises BundleError naming the file that is missing, changed or wrong.
    """
    if BUNDLE_FILE in files:
        if backbone is not None:
            raise BundleError("this bundle brings its own backbone; leave out --backbone-weights")
        return _load_described(files)
    return _load_reference(files, backbone, form or "v1.5")


def load_pth(files: Mapping[str, bytes], name: str) -> object:
    """A .pth file, tensors only: no code in it is run. Raises BundleError naming the file."""
    if name not in files:
        raise BundleError(f"{name} is missing from the bundle")
    try:
        return torch.load(io.BytesIO(files[name]), map_location="cpu", weights_only=True)
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        # torch raises UnpicklingError, RuntimeError, EOFError, ValueError ... on foreign bytes
        raise BundleError(f"{name} cannot be loaded as tensors only: {said}") from error


def save_pth(state: object) -> bytes:
    """A state dict (or a dict with one) as the bytes of a .pth file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _load_described(files: Mapping[str, bytes]) -> Bundle:
    raw = files[BUNDLE_FILE]
    manifest = BundleManifest.from_bytes(raw)
    for name in bundle_files(manifest):
        if name not in manifest.files:
            raise BundleError(f"{BUNDLE_FILE} lists no SHA-256 for {name}; train the bundle again")
        if name not in files:
            raise BundleError(f"{name} is missing from the bundle; take the bundle from its source again")
        if sha256(files[name]) != manifest.files[name]:
            raise BundleError(
                f"{name} is not the file that {BUNDLE_FILE} lists (SHA-256 differs); take it from its source again"
            )
    thresholds = read_thresholds(files[THRESHOLDS_FILE])
    if sorted(thresholds) != sorted(manifest.categories):
        raise BundleError(f"{THRESHOLDS_FILE} and {BUNDLE_FILE} do not name the same categories")
    _check_router(files, len(manifest.categories))
    warnings = () if manifest.references else (NO_REFERENCES,)
    categories, form = tuple(manifest.categories), manifest.backbone.form
    return Bundle(files, categories, thresholds, manifest.digest, form, manifest, warnings)


def _load_reference(
    files: Mapping[str, bytes], backbone: Mapping[str, torch.Tensor] | None, form: BackboneForm
) -> Bundle:
    for name in (ROUTER_FILE, THRESHOLDS_FILE):
        if name not in files:
            raise BundleError(
                f"{name} is missing: a bundle is a folder with {ROUTER_FILE}, cae_<category>.pth and {THRESHOLDS_FILE}"
            )
    thresholds = read_thresholds(files[THRESHOLDS_FILE])
    categories = tuple(sorted(thresholds))  # alphabetical order is the class order of the reference
    try:
        check_categories(list(categories))
    except ValueError as error:
        raise BundleError(f"{THRESHOLDS_FILE}: {error}") from error
    for category in categories:
        if cae_file(category) not in files:
            raise BundleError(
                f"{cae_file(category)} is missing, though {THRESHOLDS_FILE} has a threshold for {category}"
            )
    if backbone is None:
        raise BundleError("a folder of the reference's files has no backbone: name its weights with --backbone-weights")
    _check_router(files, len(categories))
    backbone = _fit(BACKBONE_FILE, lambda: backbone_state(backbone))
    needed = {ROUTER_FILE, THRESHOLDS_FILE, *(cae_file(c) for c in categories)}
    own = {**{name: files[name] for name in sorted(needed)}, BACKBONE_FILE: save_pth(dict(backbone))}
    digest = hashlib.sha256(f"form {form}\n".encode())
    for name in sorted(needed):
        digest.update(f"{name} {sha256(own[name])}\n".encode())
    for key, tensor in sorted(backbone.items()):  # by content: the bytes of a .pth differ from one torch to another
        digest.update(key.encode() + tensor.detach().contiguous().numpy().tobytes())
    warnings = (
        f"the bundle has no {BUNDLE_FILE}: its files cannot be checked for damage or change",
        "that these backbone weights are the ones its autoencoders were trained on cannot be verified",
        "the precision of its calibration is unknown: float32 is assumed",
        NO_REFERENCES,
    )
    return Bundle(own, categories, thresholds, digest.hexdigest(), form, None, warnings)


def _check_router(files: Mapping[str, bytes], categories: int) -> None:
    classes = _fit(ROUTER_FILE, lambda: number_of_classes(router_state(load_pth(files, ROUTER_FILE))))
    if classes != categories:
        raise BundleError(f"{ROUTER_FILE} tells {classes} categories apart, but {THRESHOLDS_FILE} has {categories}")


def _state(files: Mapping[str, bytes], name: str) -> dict[str, torch.Tensor]:
    return _fit(name, lambda: router_state(load_pth(files, name)))


def _fit(name: str, build: Any) -> Any:
    try:
        return build()
    except (RuntimeError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{name} does not fit the model: {' '.join(str(error).split())[:300]}") from error
