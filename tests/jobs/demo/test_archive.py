"""The demo's archive on disk: counts, paths, truth, broken files, and the same bytes from the same seed."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo.archive import COLUMNS, Archive, make_archive
from jobs.demo.broken import BROKEN
from jobs.demo.products import CATEGORIES, DEFECTS

TRAIN, GOOD, PER_DEFECT = 5, 2, 1
PATH = re.compile(r"archive/L[123]/c[12]/(\d{4}-\d{2}-\d{2})/(\d{6})_(\d{6})\.(jpg|png)")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("night")
    return make_archive(root, seed=3, train=TRAIN, good=GOOD, per_defect=PER_DEFECT)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_counts(archive: Archive) -> None:
    kinds, defects = len(CATEGORIES), sum(map(len, DEFECTS.values()))
    assert archive.counts == {
        "training": kinds * TRAIN,
        "archive": kinds * GOOD + defects * PER_DEFECT + 7,
        "good": kinds * GOOD,
        "defective": defects * PER_DEFECT,
        "broken": 7,
    }
    assert sum(1 for p in (archive.root / "training").rglob("*") if p.is_file()) == kinds * TRAIN
    assert sum(1 for p in (archive.root / "archive").rglob("*") if p.is_file()) == archive.counts["archive"]
    assert sum(1 for p in (archive.root / "masks").rglob("*") if p.is_file()) == defects * PER_DEFECT
    by_class = Counter((row.category, row.defect) for row in archive.truth if not row.broken)
    assert by_class == {
        **{(c, ""): GOOD for c in CATEGORIES},
        **{(c, d): PER_DEFECT for c in CATEGORIES for d in DEFECTS[c]},
    }
    assert sorted(row.broken for row in archive.truth if row.broken) == sorted(BROKEN)


def test_training_layout(archive: Archive) -> None:
    for category in CATEGORIES:
        folder = archive.root / "training" / category / "train" / "good"
        assert sorted(p.name for p in folder.iterdir()) == [
            "000.png", "001.jpg", "002.jpg", "003.jpg", "004.png",
        ]  # fmt: skip


def test_paths_tell_place_and_time_only(archive: Archive) -> None:
    matches = [PATH.fullmatch(row.path) for row in archive.truth]
    assert all(matches)
    serials = [m[3] for m in matches if m]
    assert len(set(serials)) == len(serials)
    taken = sorted((m[3], m[1], m[2]) for m in matches if m)
    assert [t[1:] for t in taken] == sorted(t[1:] for t in taken), "serials rise with time"
    assert len({m[1] for m in matches if m}) == 2, "a night has two dates"
    assert not any(c in row.path or d in row.path for row in archive.truth for c in DEFECTS for d in DEFECTS[c])


def test_truth_file(archive: Archive) -> None:
    with (archive.root / "truth.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS == ("path", "category", "defect", "broken")
    assert [tuple(r.values()) for r in rows] == [(t.path, t.category, t.defect, t.broken) for t in archive.truth]
    assert [t.path for t in archive.truth] == sorted(t.path for t in archive.truth)
    on_disk = {p.relative_to(archive.root).as_posix() for p in (archive.root / "archive").rglob("*.*")}
    assert on_disk == {t.path for t in archive.truth}


def test_whole_images_open(archive: Archive) -> None:
    formats: Counter[str] = Counter()
    for row in archive.truth:
        if not row.broken:
            with Image.open(archive.root / row.path) as image:
                image.load()
                assert (image.mode, image.size) == ("RGB", (320, 320))
                formats[str(image.format)] += 1
    assert formats["JPEG"] > formats["PNG"] > 0


def test_masks_lie_beside_defects(archive: Archive) -> None:
    for row in archive.truth:
        if row.defect:
            assert row.mask == f"masks/{row.path}.png"
            with Image.open(archive.root / row.mask) as mask:
                assert (mask.mode, mask.size) == ("1", (320, 320))
                assert 0.0005 <= np.asarray(mask).mean() <= 0.12
        else:
            assert row.mask is None


def test_broken_files_fail(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**26)  # our own decoder switches Pillow's cap off for its own
    broken = [row for row in archive.truth if row.broken]
    assert len(broken) == 7
    for row in broken:
        assert (row.category, row.defect) == ("", "")
        failure = Image.DecompressionBombError if row.broken == "bomb" else OSError
        with pytest.raises(failure), Image.open(archive.root / row.path) as image:
            image.load()


def test_bomb_is_small_and_declares_much(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(archive.root / row.path for row in archive.truth if row.broken == "bomb")
    assert path.stat().st_size < 2_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(path) as image:
        assert image.size == (30_000, 30_000)


def test_truncated_files_stop_at_sixty_percent(archive: Archive) -> None:
    starts = {"truncated_jpeg": b"\xff\xd8\xff", "truncated_png": b"\x89PNG"}
    for row in archive.truth:
        if row.broken in starts:
            data = (archive.root / row.path).read_bytes()
            assert data.startswith(starts[row.broken])
            assert not data.endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))


def test_one_good_png_is_called_jpg(archive: Archive) -> None:
    disguised = [
        row
        for row in archive.truth
        if not row.broken
        and row.path.endswith(".jpg")
        and (archive.root / row.path).read_bytes().startswith(b"\x89PNG")
    ]
    assert [row.path for row in disguised] == [archive.wrong_extension]
    assert disguised[0].defect == ""


def test_same_seed_same_bytes(archive: Archive, tmp_path: Path) -> None:
    again = make_archive(tmp_path / "a", seed=3, train=TRAIN, good=GOOD, per_defect=PER_DEFECT)
    assert digests(again.root) == digests(archive.root)
    assert again.truth == archive.truth


def test_other_seed_other_bytes(tmp_path: Path) -> None:
    one, two = (make_archive(tmp_path / str(s), seed=s, train=1, good=1, per_defect=0) for s in (0, 1))
    images = [
        {v for k, v in digests(a.root).items() if not k.startswith("truth") and "masks" not in k} for a in (one, two)
    ]
    # Only the files without a picture in them (empty, page, note, bomb) may agree.
    assert len(images[0] & images[1]) == 4


def test_without_broken_files(tmp_path: Path) -> None:
    made = make_archive(tmp_path, seed=0, train=0, good=1, per_defect=0, broken=False)
    assert made.counts == {"training": 0, "archive": 6, "good": 6, "defective": 0, "broken": 0}
    assert made.wrong_extension is None
    assert not (tmp_path / "masks").exists()


def test_negative_counts() -> None:
    with pytest.raises(ValueError, match="good must not be negative"):
        make_archive(Path("nowhere"), good=-1)
