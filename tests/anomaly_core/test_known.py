"""Products that a bundle knows and others, told by the distance of their pooled features."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from anomaly_core.decision import DecisionRule, is_unknown
from anomaly_core.known import ALONE, FOLDS, RIDGE, SHRINKAGE, Known, fit_known, load_known, pooled

CHANNELS = 1536


def cluster(centre: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Around a centre, with channels of very different spread, some of them together."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.01, 1.0, CHANNELS)
    common = torch.randn(count, 1, generator=generator) * 0.5
    return centre + (torch.randn(count, CHANNELS, generator=generator) + common) * spread


@pytest.fixture(scope="module")
def centres() -> torch.Tensor:
    return torch.rand(3, CHANNELS, generator=torch.Generator().manual_seed(9)) * 2


@pytest.fixture(scope="module")
def known(centres: torch.Tensor) -> Known:
    return fit_known([cluster(centre, 60, seed) for seed, centre in enumerate(centres)])


def test_pooled_is_the_mean_over_positions() -> None:
    layer2, layer3 = torch.rand(2, 512, 28, 28).bfloat16(), torch.rand(2, 1024, 14, 14).bfloat16()
    found = pooled(layer2, layer3)
    assert found.shape == (2, CHANNELS) and found.dtype == torch.float32
    assert found[1, 3] == pytest.approx(float(layer2[1, 3].float().mean()))
    assert found[1, 512 + 5] == pytest.approx(float(layer3[1, 5].float().mean()))


def test_distances_are_mahalanobis_distances_in_multiples_of_the_limit(centres: torch.Tensor, known: Known) -> None:
    parts = [cluster(centre, 60, seed).double() for seed, centre in enumerate(centres)]
    around = torch.cat([part - part.mean(0) for part in parts]).numpy()
    covariance = around.T @ around / len(around)
    diagonal = np.diag(covariance)
    covariance = (1 - SHRINKAGE) * covariance + np.diag(SHRINKAGE * diagonal + RIDGE * diagonal.mean())
    inverse = np.linalg.inv(covariance)
    images = torch.cat([cluster(centres[1], 3, 50), torch.rand(2, CHANNELS)])
    found = known(images)
    for row, image in enumerate(images.double().numpy()):
        for column, part in enumerate(parts):
            difference = image - part.mean(0).numpy()
            expected = np.sqrt(difference @ inverse @ difference) / float(known.limits[column])
            assert found[row, column] == pytest.approx(expected, rel=1e-3)


def test_images_of_a_category_are_known_and_others_are_not(centres: torch.Tensor, known: Known) -> None:
    for index, centre in enumerate(centres):
        same = known(cluster(centre, 200, 70 + index))
        assert (same[:, index] < 0.7).all()
        assert (np.delete(same, index, axis=1) > 1.2).all()
    other = torch.rand(CHANNELS, generator=torch.Generator().manual_seed(77)) * 2
    assert (known(cluster(other, 200, 90)) > 1).all()


def test_a_limit_lies_halfway_to_the_nearest_other_category(centres: torch.Tensor, known: Known) -> None:
    parts = [cluster(centre, 60, seed) for seed, centre in enumerate(centres)]
    for index in range(3):
        others = torch.cat([part for i, part in enumerate(parts) if i != index])
        nearest = float(known(others)[:, index].min()) * float(known.limits[index])
        own = 2 * float(known.limits[index]) - nearest
        # Its own images are measured by statistics without them: as far as new ones, and farther than with them.
        seen, new = (
            float(known(images)[:, index].max()) * float(known.limits[index])
            for images in (parts[index], cluster(centres[index], 60, 30 + index))
        )
        assert seen < 0.5 * own
        assert own == pytest.approx(new, rel=0.2)


def test_categories_that_lie_in_one_place_do_not_call_their_own_images_unknown() -> None:
    centre = torch.zeros(CHANNELS)
    known = fit_known([cluster(centre, 60, 0), cluster(centre, 60, 1)])
    assert (known(cluster(centre, 300, 5)) <= 1).mean() > 0.97


def test_a_bundle_of_one_category_has_a_limit_too(centres: torch.Tensor) -> None:
    known = fit_known([cluster(centres[0], 60, 0)])
    assert (known(cluster(centres[0], 100, 5)) < 0.6).all()
    assert (known(cluster(3 * centres[1], 100, 6)) > 1).all()
    few = fit_known([cluster(centres[0], FOLDS - 2, 0)])
    assert few.limits.isfinite().all() and ALONE > 1


def test_what_is_written_is_read(known: Known) -> None:
    state = torch.load(io.BytesIO(known.to_bytes()), weights_only=True)
    again = load_known(state, 3)
    images = torch.rand(4, CHANNELS)
    assert np.array_equal(again(images), known(images))
    for change, told in (
        ({"limits": torch.ones(2)}, "limits is not float32 of shape"),
        ({"centres": state["centres"].double()}, "centres is not float32"),
        ({"limits": torch.tensor([1.0, 0.0, 1.0])}, "a limit is not above 0"),
        ({"whitening": state["whitening"] * float("nan")}, "whitening is not finite"),
        ({"more": torch.ones(1)}, "not a dict of whitening, centres, limits"),
    ):
        with pytest.raises(ValueError, match=told):
            load_known(state | change, 3)
    with pytest.raises(ValueError, match="not a dict"):
        load_known([1], 3)


@pytest.mark.parametrize(
    ("distance", "unknown"), [(None, False), (0.0, False), (1.0, False), (1.01, True), (float("nan"), True)]
)
def test_an_unknown_product_is_reviewed_whatever_it_scores(distance: float | None, unknown: bool) -> None:
    assert is_unknown(distance) == unknown
    for score, otherwise in ((0.1, "normal"), (2.0, "anomalous")):
        decision, reason = DecisionRule()(score, 1.0, confidence=1.0, category="cap", declared=None, distance=distance)
        assert (decision, reason == "unknown_category") == (("review", True) if unknown else (otherwise, False))
    reference = DecisionRule(reference=True)
    assert reference(0.1, 1.0, confidence=1.0, category="cap", declared=None, distance=distance)[0] == "normal"
