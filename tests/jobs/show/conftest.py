"""One run for the tests of this folder, and copies of it to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.show.scored import Made, make_run, moved


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Tests read it and leave it as it is."""
    return make_run(tmp_path_factory.mktemp("shown"))


@pytest.fixture
def own(made: Made, tmp_path: Path) -> Made:
    """A copy of the run and its images on this machine."""
    return moved(made, str(tmp_path / "own"))
