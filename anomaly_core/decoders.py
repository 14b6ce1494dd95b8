"""Fast decoders for the two formats that archives are full of; they give Pillow's pixels or nothing.

PNG by libspng (imagecodecs), JPEG by libjpeg-turbo without Pillow's copies (simplejpeg). Whatever is not plain, or not
faultless, is left to Pillow, which then decides: neither accepts a file that Pillow refuses (the tests mutate files).
imagecodecs' decoder on libpng is not used: on damaged files it ends the process.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that change what Pillow makes of the pixels, or that hold an orientation.
_NOT_PLAIN = {b"tRNS", b"acTL", b"eXIf"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}


def decode_plain(header: Image.Image, data: bytes) -> Image.Image | None:
    """The picture of a plain RGB or greyscale PNG or JPEG in 8 bits, as Pillow would load it; None for any other.

    header: the file as Pillow opened it, not loaded, so that its size is known to be within the limits.
    """
    if header.mode not in ("RGB", "L"):
        return None
    try:
        if header.format == "JPEG":
            pixels = simplejpeg.decode_jpeg(data, "RGB" if header.mode == "RGB" else "GRAY", strict=True)
            pixels = pixels[..., 0] if header.mode == "L" else pixels
        elif header.format == "PNG" and _is_plain_png(data):
            pixels = imagecodecs.spng_decode(data)
        else:
            return None
    except (ValueError, RuntimeError, imagecodecs.SpngError):  # damaged in some way: Pillow says in which
        return None
    return _picture(pixels, header)


def _picture(pixels: npt.NDArray[np.uint8], header: Image.Image) -> Image.Image | None:
    shape = (header.height, header.width) if header.mode == "L" else (header.height, header.width, 3)
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        return None
    return Image.fromarray(pixels)


def _is_plain_png(data: bytes) -> bool:
    """8 bits, greyscale or RGB, and nothing in it that changes the picture."""
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 33 or data[24] != 8 or data[25] not in (0, 2):
        return False
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        length = int.from_bytes(data[position : position + 4], "big")
        if kind in _NOT_PLAIN or (kind in _TEXTS and _may_turn(kind, data[position + 8 : position + 8 + length])):
            return False
        if kind == b"IEND":
            return True
        position += 12 + length
    return False


def _may_turn(kind: bytes, text: bytes) -> bool:
    """Whether a text chunk may hold an orientation, in EXIF or XMP, that Pillow would find."""
    keyword, _, rest = text.partition(b"\0")
    if b"exif" in keyword.lower():
        return True
    if keyword != b"XML:com.adobe.xmp":
        return False
    packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] != b"\0")
    return packed or b"Orientation" in rest
