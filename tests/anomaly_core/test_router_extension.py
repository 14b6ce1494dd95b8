"""A router that learns one category more, and forgets nothing."""

from __future__ import annotations

import pytest
import torch

from anomaly_core.router import build_router, extended


def features(centre: int, count: int, seed: int, spread: float = 0.2) -> torch.Tensor:
    """What the last layer sees of images of a category: units of its own are high."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(count, 512, generator=generator) * spread
    found[:, 40 * centre : 40 * centre + 40] += 1
    return found


def logits(router: dict[str, torch.Tensor], seen: torch.Tensor) -> torch.Tensor:
    return seen @ router["fc.weight"].T + router["fc.bias"]


def taken(router: dict[str, torch.Tensor], place: int, seen: torch.Tensor) -> torch.Tensor:
    """Which images the new class has, or shares with another one: bool (n,)."""
    found = logits(router, seen)
    return found[:, place] == found.max(dim=1).values


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A router of three categories, in whose last layer each looks at its own units."""
    state = dict(build_router(3).state_dict())
    state["fc.weight"] = torch.zeros(3, 512)
    for row in range(3):
        state["fc.weight"][row, 40 * row : 40 * row + 40] = 0.2
    state["fc.bias"] = torch.tensor([0.1, -0.2, 0.0])
    return state


@pytest.mark.parametrize("place", [0, 2, 3])
def test_the_new_category_is_told_and_the_others_keep_their_logits(state: dict[str, torch.Tensor], place: int) -> None:
    known = torch.cat([features(row, 40, row) for row in range(3)])
    wider = extended(state, place, known, features(7, 30, 9))
    weight, bias = wider["fc.weight"], wider["fc.bias"]
    others = [row for row in range(4) if row != place]
    assert not taken(wider, place, known).any()
    assert torch.equal(weight[others], state["fc.weight"]) and torch.equal(bias[others], state["fc.bias"])
    for row, expected in enumerate(others):
        unseen = logits(wider, features(row, 200, 50 + row))
        assert (unseen.argmax(dim=1) == expected).all()
    assert (logits(wider, features(7, 200, 60)).argmax(dim=1) == place).all()
    assert set(wider) == set(state) and all(torch.equal(wider[k], state[k]) for k in state if not k.startswith("fc."))


def test_what_cannot_be_told_apart_takes_from_one_category_only(state: dict[str, torch.Tensor]) -> None:
    known = torch.cat([features(row, 40, row) for row in range(3)])
    wider = extended(state, 3, known, features(1, 40, 1))  # the very same images
    counts = taken(wider, 3, known).reshape(3, 40).sum(dim=1)
    assert counts[1] > 0 and counts[0] == counts[2] == 0


def test_few_new_images_weigh_as_much_as_many_others(state: dict[str, torch.Tensor]) -> None:
    known = torch.cat([features(row, 400, row) for row in range(3)])
    wider = extended(state, 3, known, features(7, 5, 9))
    assert not taken(wider, 3, known).any()
    assert (logits(wider, features(7, 200, 60)).argmax(dim=1) == 3).all()


def test_a_part_that_hardly_looks_like_its_category_is_not_of_the_new_one() -> None:
    """The router has hardly any unit for what is new, so it could be told by the lack of all others alone."""
    state = dict(build_router(2).state_dict())
    state["fc.weight"] = torch.zeros(2, 512)
    state["fc.weight"][0, :40], state["fc.weight"][0, 40:80] = 0.2, -0.2
    state["fc.weight"][1], state["fc.bias"] = -state["fc.weight"][0], torch.zeros(2)

    def some(row: int, count: int, seed: int) -> torch.Tensor:
        found = features(row, count, seed)
        found[:, 80:120] -= 0.7 * (row == 2)
        return found

    wider = extended(state, 2, torch.cat([some(row, 40, row) for row in range(2)]), some(2, 40, 9))
    for row in range(3):
        broken = some(row, 200, 50 + row) * torch.linspace(0.3, 1, 200)[:, None]
        assert (logits(wider, broken).argmax(dim=1) == row).all()
