"""Which rows of a published table are meant."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder
from jobs.show.rows import find_rows
from jobs.storage import delete, write_bytes
from tests.jobs.show.scored import BROKEN, LATE, TALL, TURNED, Made
from tests.nights import Night, write_night


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[str]]:
    """A night of 3,000 rows, and the image_ids of its images."""
    folder, _ = write_night(str(tmp_path_factory.mktemp("night")), Night("2026-03-01", rows=3000))
    lines = ("L1", "L2", "L3", "L4")
    uris = (f"s3://plant/2026-03-01/{lines[i // 3 % 4]}/{i:08d}.png" for i in range(3000))
    return folder, sorted(hashlib.md5(uri.encode(), usedforsecurity=False).hexdigest() for uri in uris)


def test_the_shortest_beginning_that_no_other_has(night: tuple[RunFolder, list[str]]) -> None:
    folder, ids = night
    for image, before, after in zip(ids[1:-1:300], ids[:-2:300], ids[2::300], strict=True):
        length = next(n for n in range(4, 33) if image[:n] not in (before[:n], after[:n]))
        (row,) = find_rows(folder, [image[:length].upper()], [])
        assert row.image_id == image


def test_a_beginning_of_several_is_told_with_some_of_them(night: tuple[RunFolder, list[str]]) -> None:
    folder, ids = night
    first, second = next((a, b) for a, b in pairwise(ids) if a[:4] == b[:4])
    both = [image for image in ids if image[:4] == first[:4]]
    with pytest.raises(AuditError) as told:
        find_rows(folder, [ids[0], first[:4]], [])
    assert told.value.code == exits.USAGE
    assert told.value.message.startswith(
        f"{first[:4]}: {len(both)} images of run 2026-03-01/audit have an image_id that begins so ({first}, {second}"
    )


@pytest.mark.parametrize(
    "name",
    ["", "abc", "../../../etc/passwd", "abcd/../ef", "abcg", "0" * 33, "abcd\n", "%", "abcd' OR 1=1 --", "[b]abcd"],
)
def test_what_is_no_image_id_is_refused(made: Made, name: str) -> None:
    with pytest.raises(
        AuditError, match="is no image_id: give its 32 hexadecimal digits, or the first 4 or more"
    ) as told:
        find_rows(made.folder, [name], [])
    assert told.value.code == exits.USAGE


def test_what_is_not_there_is_told(made: Made) -> None:
    with pytest.raises(AuditError, match="0000: no image of run 2026-01-02/audit has an image_id that begins so"):
        find_rows(made.folder, ["0000"], [])
    with pytest.raises(AuditError, match=r"images/None\.png: no row of run 2026-01-02/audit has this uri"):
        find_rows(made.folder, [], [TURNED, "images/None.png"])


def test_rows_come_once_as_they_are_asked_for_and_a_duplicate_is_its_first(made: Made) -> None:
    (late,) = find_rows(made.folder, [], [LATE])
    found = find_rows(made.folder, [late.image_id], [TALL, TURNED, LATE, BROKEN])
    assert [row.uri for row in found] == [LATE, TALL, TURNED, BROKEN]
    assert [row.status for row in found] == ["failed", "scored", "scored", "failed"]
    assert (late.error_stage, late.error_code, late.score) == ("fetch", "throttled", None)
    facts = made.facts[TALL]
    names = ("score", "threshold", "margin", "p_value", "decision", "width", "height", "sha256", "category")
    assert [getattr(found[1], name) for name in names] == [facts[name] for name in names]


def test_a_table_that_is_gone_or_damaged_is_told(own: Made, tmp_path: Path) -> None:
    write_bytes(own.folder.results, b"no table")
    with pytest.raises(AuditError, match="the table cannot be read") as told:
        find_rows(own.folder, ["abcd"], [])
    assert told.value.code == exits.FAILED
    delete(own.folder.results)
    with pytest.raises(AuditError, match="the published table of a committed run is gone"):
        find_rows(own.folder, ["abcd"], [])
