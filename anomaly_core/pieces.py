"""Files cut into more pieces than any camera writes, or larger ones: small pictures that keep a decoder busy.

Decoders walk through chunks, segments and scans one by one, partly in Python; a cap on bytes and pixels does not bound
that. Looked at before a file is opened, and cheap: a walk ends at the first piece too many.
"""

from __future__ import annotations

import re
from typing import Literal

# A PNG of 64 MiB in the usual chunks of 8 KiB has 8,192.
MAX_CHUNKS = 50_000
# Metadata is split into segments of at most 64 KiB.
MAX_SEGMENTS = 5_000
# Each is a pass over the whole picture. Usual progressive files have 10; those that were optimised, some more.
MAX_SCANS = 100
# Blocks of 255 bytes before the picture of a GIF; Pillow puts a comment together in time that grows with its square.
MAX_BLOCKS = 5_000
# Runs of a BMP are put together in Python, a million in a second; two bytes each.
MAX_RUN_BYTES = 16 * 2**20

# In the directory of a TIFF, each read in Python; usual ones have some dozens.
MAX_ENTRIES = 65_535

_SCAN, _END = 0xDA, 0xD9
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame; those three are tables
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_BIG = 43  # version of a TIFF whose offsets are of 64 bits
_WHOLE = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4, 16: 8, 17: 8}  # bytes of the whole numbers among a TIFF's types
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# A marker within the coded data: 0xFF before 0 is data, before 0xD0 to 0xD7 a restart, before 0xFF filling.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def too_many_pieces(data: bytes) -> str | None:
    """What a PNG, JPEG, GIF, TIFF or BMP file has too many of, in words; None if all is in a usual number of pieces."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"GIF8"):
        return _gif(data)
    if data.startswith(b"II+\0"):  # of the other byte order, Pillow reads it as the usual kind
        return _tiff(data)
    return _bmp(data) if data.startswith(b"BM") else None


def tile_of(data: bytes, directory: int) -> tuple[int, int]:
    """Width and length in pixels of a TIFF's tiles, (0, 0) if it has none. directory: where that of its picture is.

    A decoder makes room for a whole tile, however small the picture. The directory is read as libtiff reads it, but of
    a tag that comes twice the largest counts: libtiff takes the first, Pillow the last.
    """
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], order)

    # Of an entry: its length, where its value is, or the offset of one that is larger; before them all, their count.
    length, at, count = (20, 12, 8) if number(2, 2) == _BIG else (12, 8, 2)
    sides = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    for i in range(min(number(directory, count), MAX_ENTRIES)):
        entry = directory + count + i * length
        tag, size = number(entry, 2), _WHOLE.get(number(entry + 2, 2), 0)
        if tag in sides:
            where = entry + at if size <= length - at else number(entry + at, 4)
            sides[tag] = max(sides[tag], number(where, size))
    return sides[_TILE_WIDTH], sides[_TILE_LENGTH]


def _tiff(data: bytes) -> str | None:
    # Of 64 bits: others count their entries in 16.
    directory = int.from_bytes(data[8:16], "little")
    entries = int.from_bytes(data[directory : directory + 8], "little")
    return f"more than {MAX_ENTRIES:,} entries in its directory" if entries > MAX_ENTRIES else None


def _png(data: bytes) -> str | None:
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data) or data[position + 4 : position + 8] == b"IEND":
            return None
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return f"more than {MAX_CHUNKS:,} chunks"


def _jpeg(data: bytes) -> str | None:
    position, progressive, components = 2, False, 0
    for _ in range(MAX_SEGMENTS):
        marker = data[position : position + 2]
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] in (_SCAN, _END):
            break
        if marker[1] in _FRAMES:
            progressive = marker[1] in _PROGRESSIVE
            components = int.from_bytes(data[position + 9 : position + 10], "big")
        filling = marker[1] == 0xFF
        position += 1 if filling else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    else:
        return f"more than {MAX_SEGMENTS:,} segments before the picture"
    one_scan = not progressive and data[position + 4 : position + 5] == bytes([components])
    # The bytes of a start of scan also occur in what follows the picture, so a high number is looked into.
    if not one_scan and data.count(b"\xff\xda", position) > MAX_SCANS and _scans(data, position) > MAX_SCANS:
        return f"more than {MAX_SCANS} scans"
    return None


def _scans(data: bytes, position: int) -> int:
    """Scans of a JPEG from its first start of scan on, counted to one more than are allowed."""
    count = 0
    while count <= MAX_SCANS:
        found = _MARKER.search(data, position)
        if found is None or found.group() == b"\xff\xd9":
            break
        count += found.group() == b"\xff\xda"
        position = found.start() + 2 + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return count


def _gif(data: bytes) -> str | None:
    position = 13 + (3 << (1 + (data[10] & 7)) if len(data) > 10 and data[10] & 0x80 else 0)
    blocks = 0
    while data[position : position + 1] == b"!":
        position += 2
        while data[position : position + 1] not in (b"\0", b""):
            position += 1 + data[position]
            blocks += 1
            if blocks > MAX_BLOCKS:
                return f"more than {MAX_BLOCKS:,} blocks before the picture"
        position += 1
        blocks += 1
    return None


def _bmp(data: bytes) -> str | None:
    packed = int.from_bytes(data[30:34], "little") in (1, 2)
    return f"more than {MAX_RUN_BYTES:,} bytes of runs" if packed and len(data) > MAX_RUN_BYTES else None
