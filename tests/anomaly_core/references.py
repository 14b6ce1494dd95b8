"""A bundle that the re-statement of the reference made, and how its images are scored by both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from anomaly_core.bundle import Bundle, load_bundle
from anomaly_core.features import Backbone
from anomaly_core.inspector import Inspector
from tests.reference import pipeline

State = Mapping[str, torch.Tensor]
Backbones = Mapping[str, Backbone]


@dataclass(frozen=True)
class ReferenceBundle:
    """The folder, the backbone that it goes with, its categories, and images to score."""

    folder: Path
    backbone: State = field(repr=False)
    form: pipeline.Form
    categories: tuple[str, ...]
    images: tuple[Path, ...]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def load(self) -> Bundle:
        return load_bundle(self.files(), backbone=self.backbone, form=self.form)


def assert_same_results(made: ReferenceBundle, inspector: Inspector) -> None:
    """Every image has the category, score and decision that the re-statement computes."""
    backbone = pipeline.resnet50(made.form, made.backbone)
    decisions = set()
    for path in made.images:
        with mock.patch.object(pipeline, "resnet50", return_value=backbone):  # the same each time
            want = pipeline.score_image(
                made.folder, path, backbone=made.backbone, form=made.form, categories=made.categories
            )
        got = inspector.inspect(path.read_bytes())
        np.testing.assert_allclose(got.score, want["score"], rtol=1e-5, err_msg=path.name)
        assert (got.category, got.threshold) == (want["category"], want["threshold"])
        np.testing.assert_allclose(got.confidence, want["confidence"], rtol=1e-4)
        if abs(want["score"] / want["threshold"] - 1) > 1e-5:
            assert got.decision == want["decision"]
        decisions.add(got.decision)
    assert decisions == {"normal", "anomalous"}, "images on one side of the threshold only prove little"
