"""Image files made in memory, with the pixels that they must give, computed without the package."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

ORIENTATION = 274


def colours(height: int = 90, width: int = 70, seed: int = 0) -> Pixels:
    """A picture without any symmetry, uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return (smooth // 2 + generator.integers(0, 100, (height, width, 3))).astype(np.uint8)


def encode(picture: Image.Image | npt.NDArray[Any], format: str, **options: Any) -> bytes:
    """The bytes of a file of that format."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def resized(rgb: Pixels) -> Pixels:
    """What the models must see of an upright 8-bit RGB picture."""
    return np.asarray(Image.fromarray(rgb).resize((224, 224), Image.Resampling.BILINEAR))


def grey(values: npt.NDArray[Any]) -> Pixels:
    """One channel as three equal ones."""
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def stored(upright: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """How a camera stores a picture with that EXIF orientation (TIFF 6.0, tag 274), done on the array."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    return np.ascontiguousarray(turned)


def exif(orientation: int) -> bytes:
    """An EXIF block with nothing but the orientation."""
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file from filtered rows; extra: whole chunks between IHDR and IDAT."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + png_chunk(b"IEND", b"")


def png16(values: npt.NDArray[np.uint16]) -> bytes:
    """16-bit greyscale (H, W), or RGB (H, W, 3), as PNG."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 0 if values.ndim == 2 else 2, rows)


def tiff(
    values: npt.NDArray[Any], order: Literal["<", ">"] = "<", tags: dict[int, int] | None = None, compress: bool = False
) -> bytes:
    """A one-strip greyscale TIFF of uint8, uint16, int32 or float32 (H, W) in little- or big-endian bytes."""
    height, width = values.shape
    strip = values.astype(values.dtype.newbyteorder(order)).tobytes()
    strip = zlib.compress(strip) if compress else strip
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    fields = {
        256: width, 257: height, 258: values.dtype.itemsize * 8, 259: 8 if compress else 1, 262: 1, 273: 8,
        277: 1, 278: height, 279: len(strip), 339: kind,
    } | (tags or {})  # fmt: skip
    directory = struct.pack(order + "H", len(fields))
    directory += b"".join(struct.pack(order + "HHII", tag, 4, 1, fields[tag]) for tag in sorted(fields))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return head + struct.pack(order + "I", 8 + len(strip)) + strip + directory + b"\0\0\0\0"


def small_files() -> dict[str, bytes]:
    """One small valid file of every kind that is read."""
    rgb = colours(30, 40)
    image = Image.fromarray(rgb)
    other = Image.fromarray(colours(30, 40, seed=1))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(rgb[..., 0]))
    palette = image.quantize(16)
    wide = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
    return {
        "jpeg": encode(image, "JPEG", quality=60),
        "jpeg-exif": encode(image, "JPEG", quality=60, exif=exif(6)),
        "jpeg-progressive": encode(image, "JPEG", quality=60, progressive=True),
        "jpeg-cmyk": encode(image.convert("CMYK"), "JPEG", quality=60),
        "jpeg-grey": encode(image.convert("L"), "JPEG", quality=60),
        "mpo": encode(image, "MPO", save_all=True, append_images=[other], quality=60),
        "png": encode(image.quantize(64).convert("RGB"), "PNG"),
        "png-alpha": encode(alpha, "PNG"),
        "png-palette": encode(palette, "PNG", transparency=3),
        "png-grey16": png16(wide),
        "png-bit": encode(image.convert("1"), "PNG"),
        "png-exif": encode(image.convert("L"), "PNG", exif=exif(5)),
        "apng": encode(palette, "PNG", save_all=True, append_images=[other.quantize(16)]),
        "webp": encode(image, "WEBP", quality=50),
        "webp-lossless": encode(image, "WEBP", lossless=True, exif=exif(8)),
        "webp-animated": encode(image, "WEBP", save_all=True, append_images=[other], quality=40),
        "gif": encode(palette, "GIF"),
        "gif-animated": encode(palette, "GIF", save_all=True, append_images=[other.quantize(16)], transparency=2),
        "tiff": encode(image.convert("L"), "TIFF", compression="raw"),
        "tiff-lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encode(palette, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encode(image, "TIFF", compression="jpeg"),
        "tiff-group4": encode(image.convert("1"), "TIFF", compression="group4"),
        "tiff-turned": encode(image.convert("L"), "TIFF", tiffinfo={ORIENTATION: 6}),
        "tiff-grey16": tiff(wide, ">"),
        "bmp": encode(image.convert("L"), "BMP"),
        "bmp-palette": encode(palette, "BMP"),
    }
