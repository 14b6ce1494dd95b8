"""Every kind of bad image through the load stage, from disk: one row each, with its own code; and odd ones scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from anomaly_core.preprocess import DEFAULT, Limits, decode
from jobs.access import AllowList
from jobs.audit import load as module
from jobs.audit.load import Load, LoadSettings
from manifests.freeze import freeze_file
from tests.anomaly_core.files import colours, encode, png, small_files
from tests.faults.bombs import jpeg_of_scans

LIMITS = Limits(max_bytes=200_000, max_pixels=50_000)
JPEG, PNG = encode(colours(60, 80), "JPEG"), encode(colours(60, 80), "PNG")
BAD: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "decode/empty_object"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "decode/html_document"),
    "error.png": (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "decode/html_document"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "decode/truncated_image"),
    "cut.png": (PNG[: len(PNG) // 2], "decode/truncated_image"),
    "damaged.png": (PNG[:900] + bytes([PNG[900] ^ 255]) + PNG[901:], "decode/corrupt_image"),
    "bomb.png": (png(30_000, 30_000, 1, 0, b"\0" * 1000), "decode/decompression_bomb"),
    "scans.jpg": (jpeg_of_scans(200, 64), "decode/decompression_bomb"),
    "bytes.bmp": (encode(colours(300, 300), "BMP"), "fetch/too_many_bytes"),
    "pixels.jpg": (encode(colours(300, 300), "JPEG"), "decode/too_many_pixels"),
    "report.png": (b"%PDF-1.7\n", "decode/unsupported_format"),
    "drawing.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "decode/unsupported_format"),
    "noise.tif": (np.random.default_rng(0).bytes(4096), "decode/unsupported_format"),
}
# Whatever its name says: a file is what its content is.
NAMES = {"jpeg": "png", "png": "jpg", "tiff": "gif", "bmp": "jpeg", "webp": "tif", "gif": "bmp"}
GOOD = {f"{kind}.{NAMES.get(kind, 'dat')}": data for kind, data in small_files().items()}


class Attempt:
    """A registry that says which attempt it is, and hears nothing else."""

    def __init__(self, number: int):
        self.begin = self.spent = self.read = self.readable = self
        self.number = number

    def remote(self, *_: Any) -> int:
        return self.number


@pytest.mark.parametrize("attempt", [1, 2], ids=["first attempt", "careful attempt"])
def test_each_bad_image_costs_its_row_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    monkeypatch.setattr(module.ray, "get", lambda value: value)
    files = {name: data for name, (data, _) in BAD.items()} | GOOD
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    source = tmp_path / "manifest.csv"
    source.write_text("uri\n" + "".join(f"{name}\n" for name in files))
    frozen = freeze_file(source, tmp_path / "frozen", shard_rows=len(files))
    (shard,) = frozen.shards
    settings = LoadSettings(str(tmp_path / "frozen"), AllowList.of(str(source), []), LIMITS, DEFAULT, 4, 60.0)
    descriptor = {"shard": 0, "part": shard.part, "row_group": 0, "rows": shard.rows}
    rows = Load(settings, Attempt(attempt))(pa.Table.from_pylist([descriptor])).to_pylist()
    assert [row["uri"] for row in rows] == list(files)
    failed = {row["uri"]: f"{row['error_stage']}/{row['error_code']}" for row in rows if row["error_stage"]}
    assert failed == {name: code for name, (_, code) in BAD.items()}
    for row in rows:
        if row["uri"] in GOOD:
            expected = decode(GOOD[row["uri"]], LIMITS)
            assert row["pixels"] == expected.pixels.tobytes(), row["uri"]
            assert (row["width"], row["height"]) == (expected.width, expected.height)
        else:
            assert row["pixels"] is None and row["error_message"]
