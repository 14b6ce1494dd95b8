"""The unreadable files a production archive collects: each maker gives the bytes and the extension of one."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 92
_BOMB_SIDE = 30_000


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """The line's usual format."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def png(image: NDArray[np.uint8]) -> bytes:
    """Lossless; compressed lightly, as sensor noise hardly compresses and the demo should start soon."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def _cut(whole: bytes) -> bytes:
    """A transfer that stopped at 60 %."""
    return whole[: len(whole) * 6 // 10]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb() -> bytes:
    """A few hundred bytes that declare 900 million pixels."""
    header = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + 3 * _BOMB_SIDE), 9)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


_ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>502 Bad Gateway</title></head>
<body><h1>502 Bad Gateway</h1><p>The image store did not answer in time.</p></body></html>
"""
_NOTE = b"camera offline 02:14-02:31, trigger cable replaced, no image for this part\n"

Maker = Callable[[NDArray[np.uint8], np.random.Generator], bytes]

BROKEN: dict[str, tuple[str, Maker]] = {
    "bomb": ("png", lambda image, rng: _bomb()),
    "empty": ("jpg", lambda image, rng: b""),
    "html": ("jpg", lambda image, rng: _ERROR_PAGE),
    "random_bytes": ("png", lambda image, rng: rng.bytes(40_000)),
    "text": ("jpg", lambda image, rng: _NOTE),
    "truncated_jpeg": ("jpg", lambda image, rng: _cut(jpeg(image))),
    "truncated_png": ("png", lambda image, rng: _cut(png(image))),
}
"""Kind of damage -> (extension, maker of the bytes from a whole photograph)."""
