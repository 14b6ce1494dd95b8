"""Small files made to cost much time or memory, by format."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.anomaly_core.files import colours, encode, png, png_chunk, tiff

SIDE = 10_000  # so many pixels a side are the cap of 100 million
MEGABYTE = 2**20
LARGE = 64 * MEGABYTE  # packed a thousand times smaller
SMALL = Image.fromarray(colours(30, 40))
ROW = png(2, 2, 8, 0, b"\0\1\2\0\3\4")
IDAT = ROW.index(b"IDAT") - 4
IEND = len(ROW) - 12


def _zeros(count: int) -> bytes:
    """So many zeros, deflated; not all held at once."""
    packer, step = zlib.compressobj(9), bytes(MEGABYTE)
    packed = [packer.compress(step) for _ in range(count // MEGABYTE)]
    return b"".join([*packed, packer.compress(step[: count % MEGABYTE]), packer.flush()])


def _png_of(bits: int, colour: int, channels: int, side: int = SIDE) -> bytes:
    """A black PNG of the largest size that is allowed."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0))
    data = png_chunk(b"IDAT", _zeros(side * (1 + side * channels * bits // 8)))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


def _within_png(chunks: bytes, at: int = IDAT) -> bytes:
    return ROW[:at] + chunks + ROW[at:]


def _jpeg_sized(data: bytes, side: int = SIDE) -> bytes:
    at = data.index(b"\xff\xc0") if b"\xff\xc0" in data else data.index(b"\xff\xc2")
    return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]


def jpeg_of_scans(scans: int, side: int = 2000) -> bytes:
    """A progressive JPEG whose last scan is repeated: each is a pass over the whole picture, for a few bytes."""
    data = _jpeg_sized(encode(Image.new("RGB", (16, 16)), "JPEG", progressive=True), side)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def _jpeg_segments(marker: int, size: int, count: int) -> bytes:
    data = encode(SMALL, "JPEG")
    return data[:2] + (bytes([0xFF, marker]) + struct.pack(">H", size + 2) + bytes(size)) * count + data[2:]


def _gif_comment(blocks: int) -> bytes:
    data = encode(SMALL.quantize(16), "GIF")
    at = data.index(b"\x2c", 13 + 3 * 16)
    return data[:at] + b"!\xfe" + (b"\xff" + b"c" * 255) * blocks + b"\0" + data[at:]


def _gif_extensions(count: int) -> bytes:
    data = encode(SMALL.quantize(16), "GIF")
    at = data.index(b"\x2c", 13 + 3 * 16)
    return data[:at] + b"!\xff\x01x\0" * count + data[at:]


def _gif_frame(width: int, height: int) -> bytes:
    data = encode(SMALL.quantize(16), "GIF")
    at = data.index(b"\x2c\0\0\0\0\x28\0\x1e\0")
    return data[: at + 5] + struct.pack("<HH", width, height) + data[at + 9 :]


def _bmp_rle(pairs: int, side: int = SIDE) -> bytes:
    """Run-length coded: ``pairs`` runs of one pixel each, for a picture of the largest size."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 2 * pairs, 2835, 2835, 256, 0)
    body = head + bytes(1024) + b"\x01\x00" * pairs + b"\x00\x01"
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 1024) + body


def tiff_tiles(side: int, compression: int = 8, zeros: int = MEGABYTE, second: int | None = None) -> bytes:
    """A small picture in one tile of that many pixels a side. second: the same tags again, which say that."""
    tile = _zeros(zeros)
    fields = {256: 8, 257: 8, 258: 8, 259: compression, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(tile)}
    tags = sorted(
        [*fields.items(), *([] if second is None else [(322, second), (323, second)])], key=lambda tag: tag[0]
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(tile)) + tile + struct.pack("<H", len(tags)) + entries + bytes(4)


def tiff_big(entries: int) -> bytes:
    """Of the kind with 64-bit offsets; so many entries of a tag that nobody knows."""
    head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, entries)
    return head + struct.pack("<HHQQ", 65_000, 4, 1, 1) * entries + bytes(8)


def _tiff_black(dtype: str, side: int = SIDE) -> bytes:
    small = tiff(np.zeros((4, 4), dtype), compress=True)
    strip = _zeros(side * side * np.dtype(dtype).itemsize)
    directory = small[struct.unpack_from("<I", small, 4)[0] :]
    for tag, value in ((256, side), (257, side), (278, side), (279, len(strip))):
        at = next(i for i in range(2, len(directory), 12) if directory[i : i + 2] == struct.pack("<H", tag))
        directory = directory[: at + 8] + struct.pack("<I", value) + directory[at + 12 :]
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


def _tiff_tag(tag: int, kind: int, count: int, value: int) -> bytes:
    """One tag of a small TIFF says what it likes."""
    data = bytearray(tiff(np.zeros((4, 4), np.uint8), tags={tag: value}))
    start = struct.unpack_from("<I", data, 4)[0] + 2
    at = next(i for i in range(start, len(data), 12) if struct.unpack_from("<H", data, i)[0] == tag)
    struct.pack_into("<HII", data, at + 2, kind, count, value)
    return bytes(data)


def _webp_canvas(side: int) -> bytes:
    """An animation whose canvas is that large, around a small frame."""
    data = encode(SMALL, "WEBP", save_all=True, append_images=[SMALL.rotate(180)])
    at = data.index(b"VP8X") + 12
    return data[:at] + (side - 1).to_bytes(3, "little") * 2 + data[at + 6 :]


# What the largest black picture of each format comes to: it is allowed, and what it costs is bounded by the caps.
AT_THE_CAP: dict[str, Callable[[], bytes]] = {
    "png rgb": lambda: _png_of(8, 2, 3),
    "png rgba": lambda: _png_of(8, 6, 4),
    "png 16-bit grey": lambda: _png_of(16, 0, 1),
    "png 16-bit rgba": lambda: _png_of(16, 6, 4),
    "png 1 bit": lambda: _png_of(1, 0, 1),
    "jpeg": lambda: _jpeg_sized(encode(SMALL, "JPEG")),
    "jpeg progressive": lambda: _jpeg_sized(encode(SMALL, "JPEG", progressive=True)),
    "jpeg of 80 scans": lambda: jpeg_of_scans(80, SIDE),
    "tiff 8-bit": lambda: _tiff_black("uint8"),
    "tiff 16-bit": lambda: _tiff_black("uint16"),
    "tiff 32-bit": lambda: _tiff_black("int32"),
    "webp": lambda: encode(Image.new("RGB", (9_900, 9_900)), "WEBP", lossless=True, method=0),
}
# Refused, each with its code, before it costs anything; or harmless.
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png that ends at once": ("truncated_image", lambda: png(SIDE, SIDE, 8, 2, b"\0" * 1000)),
    "png over the cap": ("decompression_bomb", lambda: png(60_000, 60_000, 1, 0, bytes(99_999))),
    "png zTXt": ("corrupt_image", lambda: _within_png(png_chunk(b"zTXt", b"k\0\0" + _zeros(LARGE)))),
    "png zTXt behind": ("decoded", lambda: _within_png(png_chunk(b"zTXt", b"k\0\0" + _zeros(LARGE)), IEND)),
    "png iTXt": ("corrupt_image", lambda: _within_png(png_chunk(b"iTXt", b"k\0\1\0\0\0" + _zeros(LARGE)))),
    "png iCCP": ("corrupt_image", lambda: _within_png(png_chunk(b"iCCP", b"k\0\0" + _zeros(LARGE)))),
    "png 100 zTXt": ("corrupt_image", lambda: _within_png(png_chunk(b"zTXt", b"k\0\0" + _zeros(MEGABYTE)) * 100)),
    "png 5 million chunks": ("decompression_bomb", lambda: _within_png(png_chunk(b"abCd", b"") * 5_000_000)),
    "jpeg over the cap": ("decompression_bomb", lambda: _jpeg_sized(encode(SMALL, "JPEG"), 65_000)),
    "jpeg of 400 scans": ("decompression_bomb", lambda: jpeg_of_scans(400)),
    "jpeg of 100,000 scans": ("decompression_bomb", lambda: jpeg_of_scans(100_000)),
    "jpeg 15 million segments": ("decompression_bomb", lambda: _jpeg_segments(0xE5, 0, 15_000_000)),
    "jpeg 60 MB of comments": ("decoded", lambda: _jpeg_segments(0xFE, 65_000, 900)),
    "jpeg 60 MB of EXIF": ("decoded", lambda: _jpeg_segments(0xE1, 65_000, 900)),
    "gif that ends at once": ("truncated_image", lambda: _gif_frame(SIDE, SIDE)),
    "gif frame over the cap": ("decompression_bomb", lambda: _gif_frame(65_000, 65_000)),
    "gif comment of 60 MB": ("decompression_bomb", lambda: _gif_comment(240_000)),
    "gif 10 million extensions": ("decompression_bomb", lambda: _gif_extensions(10_000_000)),
    "bmp 30 million runs": ("decompression_bomb", lambda: _bmp_rle(30_000_000)),
    "bmp that ends at once": ("corrupt_image", lambda: _bmp_rle(10)),
    "tiff float": ("unsupported_format", lambda: _tiff_black("float32")),
    "tiff tile of 400 million pixels": ("decompression_bomb", lambda: tiff_tiles(20_000, zeros=20_000**2)),
    "tiff tile, twice": ("decompression_bomb", lambda: tiff_tiles(20_000, zeros=20_000**2, second=16)),
    "tiff tile of 4 billion pixels": ("decompression_bomb", lambda: tiff_tiles(65_520)),
    "tiff tile of 4 billion pixels, LZW": ("decompression_bomb", lambda: tiff_tiles(65_520, 5)),
    "tiff 3 million entries": ("decompression_bomb", lambda: tiff_big(3_000_000)),
    "tiff width of 4 billion": ("decompression_bomb", lambda: _tiff_tag(256, 4, 1, 2**32 - 1)),
    "tiff 4 billion strips": ("corrupt_image", lambda: _tiff_tag(273, 4, 2**32 - 1, 8)),
    "tiff 4 billion samples": ("corrupt_image", lambda: _tiff_tag(258, 3, 2**32 - 1, 8)),
    "tiff 60,000 samples a pixel": ("corrupt_image", lambda: _tiff_tag(277, 3, 1, 60_000)),
    "tiff directory in itself": ("decoded", lambda: _tiff_tag(34665, 4, 1, 8)),
    "webp over the cap": ("decompression_bomb", lambda: _webp_canvas(16_383)),
}
