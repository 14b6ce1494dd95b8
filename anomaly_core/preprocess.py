"""From the bytes of an image file to the 224 x 224 picture that every model sees.

The result is what Pillow's ``resize((224, 224), BILINEAR)`` gives on the 8-bit RGB image: aspect ratio not kept,
no crop. Resizing a float tensor instead moves scores by up to 2 %, so the 8-bit picture is the common currency.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from anomaly_core.decoders import decode_plain
from anomaly_core.pieces import tile_of, too_many_pieces

if TYPE_CHECKING:
    import torch

SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Only formats that Pillow decodes itself: "EPS" and its like would start another program on the bytes of a stranger.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")

# A file that declares this many pixels for each of its bytes is made to exhaust memory; real pictures have below 400.
BOMB_PIXELS_PER_BYTE = 1000

# EXIF orientation to what turns the picture upright. Not Pillow's exif_transpose: it writes the whole EXIF block anew,
# and fails on blocks whose orientation can be read.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}

# 16-bit grey to the nearest 8-bit value.
_EIGHT_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_AT_ONCE = 2**20  # of all pixels at once, every one would take 17 bytes more

# The pixel cap is checked below, on the header, with an error of its own.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Limits:
    """The largest image that is decoded: bytes of the file, and pixels its header declares."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a file on its way to the models, beside what is always done. A bundle records it.

    exif_orientation: turn the picture upright as its EXIF data says. jpeg_reduced: let libjpeg decode large JPEGs at
    1/2, 1/4 or 1/8 of their size, but at least 448 pixels a side: faster, and other pixels (scores move by up to 4 %).
    """

    exif_orientation: bool = True
    jpeg_reduced: bool = False


DEFAULT = Preprocessing()


@dataclass(frozen=True)
class Decoded:
    """An image ready for the models.

    pixels: uint8 (224, 224, 3) RGB. width, height: of the original in pixels, as displayed (EXIF orientation applied
    where the preprocessing applies it).
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int


class ImageError(Exception):
    """An image that cannot be decoded. ``code`` is one of ``CODES``; the message is for the person who looks it up."""

    CODES = (
        "empty_object",
        "html_document",
        "unsupported_format",
        "truncated_image",
        "corrupt_image",
        "decompression_bomb",
        "too_many_pixels",
        "too_many_bytes",
        "decode_timeout",
        "decoder_died",
    )

    def __init__(self, code: str, message: str):
        if code not in self.CODES:
            raise ValueError(f"unknown image error code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.code, self.message)


def decode(data: bytes, limits: Limits | None = None, preprocessing: Preprocessing = DEFAULT) -> Decoded:
    """Decode one image file by its content, whatever its name, and resize it to 224 x 224.

    Greyscale, palette, alpha, CMYK and 16-bit images become 8-bit RGB as Pillow's ``convert`` does, except that 16-bit
    greyscale is divided by 257 (Pillow would clip it). Of an animation the first frame is taken.

    Raises ImageError with a typed code.
    """
    with _upright(data, limits or Limits(), preprocessing) as (image, width, height):
        return Decoded(_rgb224(image), width, height)


def decode_whole(data: bytes, limits: Limits | None = None, exif_orientation: bool = True) -> npt.NDArray[np.uint8]:
    """The picture that ``decode`` makes smaller: uint8 (height, width, 3) RGB, as displayed, never reduced.

    Raises ImageError with a typed code.
    """
    with _upright(data, limits or Limits(), Preprocessing(exif_orientation)) as (image, _, _):
        return np.asarray(_eight_bit_colours(image).convert("RGB"))


@contextmanager
def _upright(data: bytes, limits: Limits, preprocessing: Preprocessing) -> Iterator[tuple[Image.Image, int, int]]:
    """The loaded picture, and width and height of the original as displayed; it may have been decoded smaller."""
    if not data:
        raise ImageError("empty_object", "the object has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"larger than the cap of {limits.max_bytes:,} bytes")
    pieces = too_many_pieces(data)
    if pieces is not None:
        raise ImageError("decompression_bomb", f"{pieces}: made to keep a decoder busy")
    with warnings.catch_warnings():
        # Pillow warns of odd metadata that does not touch the pixels; what matters raises.
        warnings.simplefilter("ignore")
        image = _open(data)
        with image:
            _check_size(image.width, image.height, len(data), limits)
            if isinstance(image, TiffImageFile):
                _check_size(*tile_of(data, image.tag_v2.offset), len(data), limits)
            if image.mode == "F":
                raise ImageError("unsupported_format", "floating-point pixels have no defined 8-bit scale")
            width, height = image.size
            reduce = preprocessing.jpeg_reduced and image.format == "JPEG"
            if reduce:
                image.draft(None, (2 * SIZE, 2 * SIZE))
            loaded = None if reduce else decode_plain(image, data)
            if loaded is None:
                loaded = _load(image, data)
            # A plain PNG holds no orientation, and Pillow would decode the whole picture to find none.
            if preprocessing.exif_orientation and (loaded is image or image.format == "JPEG"):
                turn = _turn(image)
                loaded = loaded if turn is None else loaded.transpose(turn)
                width, height = (height, width) if turn in _SWAPPING else (width, height)
            yield loaded, width, height


def normalise(pixels: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """uint8 (N, 224, 224, 3) RGB to (N, 3, 224, 224), scaled to [0, 1] and normalised as for ImageNet.

    The arithmetic is float32, as torchvision's, and is cast to ``dtype`` last. Memory format is channels_last.
    """
    import torch  # here, because processes that only decode would wait seconds for it

    # Whole lines of pixels, in place: over three channels at a time it takes two and a half times as long.
    count, height, width, channels = pixels.shape
    lines = pixels.reshape(count, height, width * channels).to(torch.float32)
    mean, std = (torch.tensor(values, device=pixels.device).repeat(width) for values in (MEAN, STD))
    lines.div_(255).sub_(mean).div_(std)
    return lines.to(dtype or torch.float32).view(pixels.shape).permute(0, 3, 1, 2)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # the header parsers raise nearly anything on hostile bytes
        if data[:65536].lstrip(b"\xef\xbb\xbf \t\r\n\f").startswith(b"<"):
            raise ImageError(
                "html_document", "an HTML or XML document, not an image: probably an error page"
            ) from error
        known = _format_of(data)
        if known:
            raise _decode_error(known, data, error) from error
        raise ImageError(
            "unsupported_format", f"not an image in one of {', '.join(FORMATS)} (begins with {data[:8]!r})"
        ) from error


def _check_size(width: int, height: int, size: int, limits: Limits) -> None:
    """Of a picture, or of a tile that a decoder makes room for."""
    pixels = width * height
    if pixels <= limits.max_pixels:
        return
    said = f"declares {width} x {height} pixels in {size:,} bytes"
    if pixels > BOMB_PIXELS_PER_BYTE * size:
        raise ImageError("decompression_bomb", said)
    raise ImageError("too_many_pixels", f"{said}, above the cap of {limits.max_pixels:,} pixels")


def _load(image: Image.Image, data: bytes) -> Image.Image:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError ...
        raise _decode_error(image.format or "", data, error) from error
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF that cannot be parsed says nothing about orientation; the pixels themselves are fine
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _rgb224(image: Image.Image) -> npt.NDArray[np.uint8]:
    small = _eight_bit_colours(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(small if small.mode == "RGB" else small.convert("RGB"))


def _eight_bit_colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    # Grey stays one channel: resizing it and copying the result gives the same three channels, for a third.
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    values, result = pixels.reshape(-1), np.empty(pixels.size, np.uint8)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError("unsupported_format", "integer pixels outside 0 to 65535 have no defined 8-bit scale")
    for first in range(0, len(values), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        result[part] = _EIGHT_BITS[values[part]]
    return Image.fromarray(result.reshape(pixels.shape))


def _decode_error(format: str, data: bytes, error: Exception) -> ImageError:
    # Without the address of the buffer, which differs from run to run.
    reason = re.sub(r"<_io\.BytesIO[^>]*>", "the file", str(error))
    said = f"{format or 'image'}: {type(error).__name__}: {reason}"[:300]
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}
    end = ends.get(format)
    cut = end is not None and end not in data[-4096:]
    if format == "WEBP" and len(data) >= 12:
        cut = int.from_bytes(data[4:8], "little") + 8 > len(data)
    if cut or "truncated" in str(error).lower():
        return ImageError("truncated_image", said)
    return ImageError("corrupt_image", said)


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
)


def _format_of(data: bytes) -> str:
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""
