"""Damaged image files without end: real or drawn pictures in every format that is read, mutated from a seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import Image

from tests.anomaly_core.files import colours, encode, png_chunk, small_files

# What a length, a size or an offset says when it is made to hurt.
NUMBERS = (0, 1, 2, 7, 8, 255, 256, 32_767, 32_768, 65_535, 65_536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)


@cache
def seeds(shared: Path | None) -> dict[str, bytes]:
    """Whole files by name: of real pictures where they are at hand, else of drawn ones, and one of every odd kind."""
    if shared is not None:
        paths = sorted((shared / "data" / "mvtec224").rglob("*.png"))
        pictures = [Image.open(paths[i * len(paths) // 4]).convert("RGB") for i in range(4)]
    else:
        pictures = [Image.fromarray(colours(224, 224, seed=seed)) for seed in range(4)]
    files = dict(small_files())
    for i, picture in enumerate(pictures):
        files |= {
            f"png-{i}": encode(picture, "PNG"),
            f"png-palette-{i}": encode(picture.quantize(64), "PNG"),
            f"jpeg-{i}": encode(picture, "JPEG", quality=85),
            f"jpeg-progressive-{i}": encode(picture, "JPEG", quality=85, progressive=True),
            f"tiff-{i}": encode(picture, "TIFF"),
            f"tiff-lzw-{i}": encode(picture, "TIFF", compression="tiff_lzw"),
            f"tiff-jpeg-{i}": encode(picture, "TIFF", compression="jpeg"),
            f"bmp-{i}": encode(picture, "BMP"),
            f"webp-{i}": encode(picture, "WEBP", quality=80),
            f"gif-{i}": encode(picture.quantize(64), "GIF"),
        }
    return files


def mutant(files: dict[str, bytes], seed: int) -> tuple[str, bytes]:
    """One damaged file, the same for the same seed: what was done to which, and its bytes."""
    chance = random.Random(seed)
    names = sorted(files)
    name = chance.choice(names)
    data, told = files[name], [name]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        change = chance.choice(CHANGES)
        data = _spliced(data, chance, files[chance.choice(names)]) if change is _spliced else change(data, chance)
        told.append(change.__name__.strip("_"))
    return f"seed {seed}: {' '.join(told)}", data


def _place(data: bytes, chance: random.Random) -> int:
    """A position; every second one near the beginning, where the headers are."""
    return chance.randrange(max(1, min(len(data), 200) if chance.random() < 0.5 else len(data)))


def _bits(data: bytes, chance: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64)) if result else 0):
        result[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(result)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _swapped(data: bytes, chance: random.Random) -> bytes:
    size = chance.choice((4, 16, 64, 512))
    first, second = sorted((_place(data, chance), _place(data, chance)))
    a, b = data[first : first + size], data[second : second + size]
    return data[:first] + b + data[first + size : second] + a + data[second + size :]


def _deleted(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + chance.choice((1, 2, 4, 12, 100, 1000)) :]


def _repeated(data: bytes, chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 4, 12, 64, 500))
    return data[:at] + data[at : at + size] * chance.choice((2, 3, 50, 1000)) + data[at + size :]


def _number(data: bytes, chance: random.Random) -> bytes:
    """Two or four bytes that may be a length, a size or an offset."""
    at, width, order = _place(data, chance), chance.choice((2, 4)), chance.choice("<>")
    value = chance.choice(NUMBERS) & (2 ** (8 * width) - 1)
    return data[:at] + struct.pack(order + ("H" if width == 2 else "I"), value) + data[at + width :]


def _noise(data: bytes, chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 4, 30, 300))
    return data[:at] + chance.randbytes(size) + data[at + size :]


def _spliced(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """The head of one file on the body of another."""
    at = _place(data, chance)
    return data[:at] + other[at:]


def _mended(data: bytes, chance: random.Random) -> bytes:
    """A PNG with a changed chunk whose checksum matches, so that the damage gets past it; a number in other files."""
    if not data.startswith(b"\x89PNG"):
        return _number(data, chance)
    chunks, at = [], 8
    while at + 12 <= len(data) and len(chunks) < 200:
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    which = chance.randrange(len(chunks))
    kind, body = chunks[which]
    if kind == b"IDAT" and chance.random() < 0.5:
        try:
            body = zlib.compress(_bits(zlib.decompress(body), chance))
        except zlib.error:
            body = _bits(body, chance)
    else:
        body = chance.choice((_bits, _number, _cut, _noise))(body, chance)
    chunks[which] = (kind, body)
    return data[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


CHANGES: tuple[Callable[..., bytes], ...] = (
    _bits, _bits, _cut, _swapped, _deleted, _repeated, _number, _number, _noise, _spliced, _mended, _mended,
)  # fmt: skip
