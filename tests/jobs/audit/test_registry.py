"""Which actor owns a category, and when there are more of them."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.audit.registry import Registry, ScorerSettings


class Counted(Registry):
    """A registry whose actors are numbers."""

    def _create(self) -> int:
        self.actors.append(f"actor {len(self.actors)}")
        return len(self.actors) - 1


def registry(processes: int) -> Counted:
    settings = ScorerSettings("top10_mean_224", "cpu", "float32", processes, 1, {"num_cpus": 0})
    return Counted(settings, ["bundle"], {"cap": "cap file"})


def owners(one: Registry, *categories: str) -> list[list[Any]]:
    return [one.owner(category) for category in categories]


def test_categories_are_packed_evenly_and_keep_their_actor() -> None:
    one = registry(2)
    assert owners(one, *"abcde") == [["actor 0"], ["actor 1"], ["actor 0"], ["actor 1"], ["actor 0"]]
    assert owners(one, *"edcba") == [["actor 0"], ["actor 1"], ["actor 0"], ["actor 1"], ["actor 0"]]
    assert one.actors == ["actor 0", "actor 1"]


def test_actors_are_created_when_their_first_category_comes() -> None:
    one = registry(3)
    assert one.actors == []
    one.owner("a")
    assert one.actors == ["actor 0"]


def test_the_first_actor_can_be_created_ahead() -> None:
    one = registry(2)
    one.start_first()
    one.start_first()
    assert one.actors == ["actor 0"]
    assert owners(one, "a", "b", "c") == [["actor 0"], ["actor 1"], ["actor 0"]]


def test_a_category_that_is_behind_gets_further_actors_while_there_are_any() -> None:
    one = registry(3)
    one.owner("hot")
    assert one.widen("hot") and one.owner("hot") == ["actor 0", "actor 1"]
    one.owner("other")
    assert one.actors == ["actor 0", "actor 1", "actor 2"] and one.owner("other") == ["actor 2"]
    assert one.widen("hot") and one.owner("hot") == ["actor 0", "actor 1", "actor 2"]
    assert not one.widen("hot")
    assert one.owner("hot") == ["actor 0", "actor 1", "actor 2"]


def test_one_process_is_never_widened() -> None:
    one = registry(1)
    owners(one, "a", "b")
    assert not one.widen("a") and one.owner("a") == ["actor 0"]


def test_attempts_and_files() -> None:
    one = registry(1)
    assert [one.begin(4), one.begin(4), one.begin(5)] == [1, 2, 1]
    assert one.figures()["tried_again"] == {4: 2}
    assert one.file("cap") == ["cap file"] and one.bundle() == ["bundle"]
    with pytest.raises(KeyError):
        one.file("gear")


def test_the_last_image_that_a_storage_gave_is_remembered() -> None:
    one = registry(1)
    assert one.readable() == {}
    one.read("s3://a", ("s3://a/1.png", None))
    one.read("s3://b", ("s3://b/1.png", "v1"))
    one.read("s3://a", ("s3://a/2.png", None))
    assert one.readable() == {"s3://a": ("s3://a/2.png", None), "s3://b": ("s3://b/1.png", "v1")}
