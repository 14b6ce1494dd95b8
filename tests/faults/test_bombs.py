"""Small files made to cost much: refused at once by name, or within the caps. Time and memory of each are measured."""

from __future__ import annotations

import pytest

from anomaly_core import pieces
from anomaly_core.pieces import tile_of, too_many_pieces
from anomaly_core.preprocess import ImageError, Limits, decode
from tests.anomaly_core.files import small_files
from tests.faults.bombs import AT_THE_CAP, BOMBS, IDAT, ROW, jpeg_of_scans, tiff_big, tiff_tiles
from tests.faults.costs import Cost, Scale

# A child is given long by the clock, for a machine that others keep busy, and little of CPU.
PATIENCE = 120.0
SECONDS, MEMORY = 2.0, 400 * 2**20
CAP_SECONDS, CAP_MEMORY = 20.0, 2 * 2**30


def print_costs(costs: dict[str, Cost], what: str) -> None:
    slowest = max(costs, key=lambda name: costs[name].cpu)
    largest = max(costs, key=lambda name: costs[name].memory)
    print(
        f"\n{what}: {len(costs)} files; slowest {costs[slowest].cpu:.2f} s of CPU ({slowest}), "
        f"largest {costs[largest].memory / 2**20:.0f} MiB ({largest})"
    )


def test_bombs_are_told_by_name_and_cost_little() -> None:
    costs = {}
    with Scale(PATIENCE) as scale:
        for name, (_, make) in BOMBS.items():
            costs[name] = scale.weigh(make())
    print_costs(costs, "bombs")
    assert {name: cost.code for name, cost in costs.items()} == {name: code for name, (code, _) in BOMBS.items()}
    assert [name for name, cost in costs.items() if cost.cpu > SECONDS or cost.memory > MEMORY] == []


@pytest.mark.campaign
def test_the_largest_pictures_that_are_allowed() -> None:
    costs = {}
    with Scale(PATIENCE) as scale:
        for name, make in AT_THE_CAP.items():
            costs[name] = scale.weigh(make())
            print(f"{name}: {costs[name].cpu:.2f} s of CPU, {costs[name].memory / 2**20:.0f} MiB")
    print_costs(costs, "at the cap of 100 million pixels")
    assert {name: cost.code for name, cost in costs.items()} == dict.fromkeys(AT_THE_CAP, "decoded")
    assert [name for name, cost in costs.items() if cost.cpu > CAP_SECONDS or cost.memory > CAP_MEMORY] == []


def test_usual_files_are_in_a_usual_number_of_pieces() -> None:
    assert {name: too_many_pieces(data) for name, data in small_files().items()} == dict.fromkeys(small_files())
    for data in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"GIF89a" + b"\xff" * 7 + b"!"):
        assert too_many_pieces(data) is None


def test_pieces_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (
        ("MAX_ENTRIES", 6),
        ("MAX_CHUNKS", 5),
        ("MAX_SCANS", 12),
        ("MAX_SEGMENTS", 9),
        ("MAX_BLOCKS", 3),
    ):
        monkeypatch.setattr(pieces, name, number)
    png = [ROW[:IDAT] + (b"\0\0\0\0abCd" + bytes(4)) * extra + ROW[IDAT:] for extra in (2, 3)]
    assert [too_many_pieces(data) for data in png] == [None, "more than 5 chunks"]
    jpeg = [jpeg_of_scans(extra, 16) for extra in (3, 4)]  # in place of the last of 10
    assert [too_many_pieces(data) for data in jpeg] == [None, "more than 12 scans"]
    behind = jpeg[0] + b"\xff\xda\0\2" * 99
    assert too_many_pieces(behind) is None, "what follows the picture counts for nothing"
    plain = small_files()["jpeg"]
    segments = [plain[:2] + b"\xff\xe5\0\2" * extra + plain[2:] for extra in (0, 9)]
    assert [too_many_pieces(data) for data in segments] == [None, "more than 9 segments before the picture"]
    head = b"GIF89a" + bytes(7)
    gif = [head + b"!\xfe" + b"\1c" * blocks + b"\0," for blocks in (3, 4)]
    assert [too_many_pieces(data) for data in gif] == [None, "more than 3 blocks before the picture"]
    entries = [tiff_big(count) for count in (6, 7)]
    assert [too_many_pieces(data) for data in entries] == [None, "more than 6 entries in its directory"]


def test_a_tile_counts_as_a_picture() -> None:
    """Of 64 x 64 pixels, for a picture of 8 x 8. The first and the last of the tags that come twice are held."""
    for data in (tiff_tiles(64, zeros=64 * 64), tiff_tiles(64, zeros=64 * 64, second=16), tiff_tiles(16, second=64)):
        assert tile_of(data, int.from_bytes(data[4:8], "little")) == (64, 64)
        with pytest.raises(
            ImageError, match=r"declares 64 x 64 pixels in [\d,]+ bytes, above the cap of 4,095"
        ) as caught:
            decode(data, Limits(max_pixels=64 * 64 - 1))
        assert caught.value.code == "too_many_pixels"
    assert decode(tiff_tiles(64, zeros=64 * 64), Limits(max_pixels=64 * 64)).width == 8
    assert tile_of(small_files()["tiff"], int.from_bytes(small_files()["tiff"][4:8], "little")) == (0, 0)
