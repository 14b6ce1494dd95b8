"""Decoding, against pixels computed without the package, and its refusals."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from anomaly_core import preprocess
from anomaly_core.preprocess import ImageError, Limits, Preprocessing, decode, normalise
from tests.anomaly_core.files import (
    ORIENTATION,
    Pixels,
    colours,
    encode,
    exif,
    grey,
    png,
    png16,
    png_chunk,
    resized,
    small_files,
    stored,
    tiff,
)
from tests.reference import pipeline

RGB = colours()
FILES = small_files()
S3_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>'


def code_of(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limits)
    assert caught.value.code in ImageError.CODES and caught.value.message
    return caught.value.code


def outcome(data: bytes, limits: Limits = Limits(max_pixels=2_000_000)) -> str:  # noqa: B008
    """ "decoded", to a picture of the right form, or the code of the error. Any other error is raised."""
    try:
        result = decode(data, limits)
    except ImageError as error:
        return error.code if 0 < len(error.message) <= 400 else "no fit message"
    assert result.pixels.shape == (224, 224, 3) and result.pixels.dtype == np.uint8
    assert 1 <= result.width * result.height <= limits.max_pixels
    return "decoded"


def assert_pixels(data: bytes, expected: Pixels) -> None:
    """The file decodes to exactly these upright pixels, resized; width and height are theirs."""
    result = decode(data)
    assert result.pixels.shape == (224, 224, 3) and result.pixels.dtype == np.uint8
    assert (result.width, result.height) == (expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(result.pixels, resized(expected))


# ---------------------------------------------------------------------------------------------- scored correctly


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)  # fmt: skip
def test_lossless_rgb_is_resized_by_pillow_on_8_bits(format: str, options: dict[str, object]) -> None:
    assert_pixels(encode(RGB, format, **options), RGB)


def test_a_picture_of_the_models_size_is_left_as_it_is() -> None:
    picture = colours(224, 224)
    np.testing.assert_array_equal(decode(encode(picture, "PNG")).pixels, picture)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_greyscale_gives_three_equal_channels(format: str) -> None:
    assert_pixels(encode(RGB[..., 0], format), grey(RGB[..., 0]))


def rounded(values: np.ndarray) -> Pixels:
    """16 to 8 bits, in float64: 257 is odd, so no value lies half way."""
    return grey(np.rint(values / 257.0))


def sixteen_bits(shape: tuple[int, ...] = (90, 70)) -> np.ndarray:
    values = np.random.default_rng(2).integers(0, 65536, shape).astype(np.uint16)
    values.flat[:6] = (0, 128, 129, 65535, 65406, 65407)  # the edges of the rounding
    return values


@pytest.mark.parametrize("kind", ["png", "tiff-le", "tiff-be", "tiff-be-deflate"])
def test_16_bit_greyscale_is_divided_by_257_and_rounded(kind: str) -> None:
    values = sixteen_bits()
    data = {
        "png": png16(values),
        "tiff-le": tiff(values, "<"),
        "tiff-be": tiff(values, ">"),
        "tiff-be-deflate": tiff(values, ">", compress=True),
    }[kind]
    assert_pixels(data, rounded(values))


def test_every_16_bit_value_is_rounded_to_the_nearest() -> None:
    """224 x 224 pixels, so that nothing is resized: two pictures hold all 65,536 values."""
    values = np.arange(65536, dtype=np.uint16)
    for part in (values[: 224 * 224], values[-224 * 224 :]):
        part = part.reshape(224, 224)
        np.testing.assert_array_equal(decode(png16(part)).pixels, rounded(part))


def test_16_bit_greyscale_is_turned_upright() -> None:
    values = sixteen_bits()
    assert_pixels(tiff(stored(values, 6), ">", {ORIENTATION: 6}), rounded(values))


def test_16_bit_rgb_keeps_the_high_byte_as_pillow_does() -> None:
    values = sixteen_bits((90, 70, 3))
    assert_pixels(png16(values), (values >> 8).astype(np.uint8))


def test_palette() -> None:
    image = Image.fromarray(RGB).quantize(32)
    table = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        assert_pixels(encode(image, format), table[np.asarray(image)])


@pytest.mark.parametrize("transparency", [5, bytes([0, 255, 128] + [255] * 29)])
def test_the_transparency_of_a_palette_is_ignored(transparency: int | bytes) -> None:
    image = Image.fromarray(RGB).quantize(32)
    table = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    assert_pixels(encode(image, "PNG", transparency=transparency), table[np.asarray(image)])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_dropped_as_pillows_convert_does(format: str) -> None:
    alpha = np.random.default_rng(3).integers(1, 256, (90, 70, 1)).astype(np.uint8)
    picture = np.concatenate([RGB, alpha], axis=2)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    data = encode(picture, format, **options)
    assert_pixels(data, np.asarray(Image.fromarray(picture).convert("RGB")))
    assert_pixels(data, RGB)


def test_grey_with_alpha() -> None:
    alpha = np.random.default_rng(3).integers(0, 256, (90, 70)).astype(np.uint8)
    image = Image.merge("LA", [Image.fromarray(RGB[..., 1]), Image.fromarray(alpha)])
    assert_pixels(encode(image, "PNG"), grey(RGB[..., 1]))


def test_one_bit() -> None:
    bits = RGB[..., 0] > 120
    for format, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"})):
        assert_pixels(encode(Image.fromarray(bits), format, **options), grey(bits * 255))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_the_reference_in_every_mode(mode: str, progressive: bool) -> None:
    data = encode(Image.fromarray(RGB).convert(mode), "JPEG", quality=80, progressive=progressive)
    ours = normalise(torch.tensor(decode(data).pixels)[None])
    theirs = pipeline.preprocess(Image.open(io.BytesIO(data)))
    assert torch.equal(ours, theirs)


def test_cmyk_jpeg_has_the_right_colours() -> None:
    """Adobe's CMYK is stored inverted: an error there gives the negative."""
    image = Image.new("RGB", (64, 64), (200, 60, 30)).convert("CMYK")
    pixels = decode(encode(image, "JPEG", quality=95)).pixels.reshape(-1, 3).astype(int)
    assert np.abs(pixels - (200, 60, 30)).max() <= 6


def test_jpeg_is_close_to_what_was_encoded() -> None:
    smooth = np.asarray(Image.fromarray(colours(6, 5)).resize((70, 90), Image.Resampling.BICUBIC))
    error = decode(encode(smooth, "JPEG", quality=95)).pixels.astype(int) - resized(smooth)
    assert np.abs(error).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_gives_the_upright_picture(format: str, orientation: int) -> None:
    options: dict[str, object] = {"exif": exif(orientation)}
    if format == "WEBP":
        options |= {"lossless": True}
    assert_pixels(encode(stored(RGB, orientation), format, **options), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg(orientation: int) -> None:
    plain = encode(stored(RGB, orientation), "JPEG", quality=90)
    turned = encode(stored(RGB, orientation), "JPEG", quality=90, exif=exif(orientation))
    kept = np.asarray(Image.open(io.BytesIO(plain)))
    # Each operation of stored() undoes itself, except the two quarter turns, which undo each other.
    assert_pixels(turned, stored(kept, {6: 8, 8: 6}.get(orientation, orientation)))
    left = decode(turned, preprocessing=Preprocessing(exif_orientation=False))
    assert (left.width, left.height) == (kept.shape[1], kept.shape[0])
    np.testing.assert_array_equal(left.pixels, resized(kept))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_exif_orientation_can_be_left_alone(format: str) -> None:
    picture = stored(RGB, 6)
    options = {"lossless": True} if format == "WEBP" else {}
    result = decode(
        encode(picture, format, exif=exif(6), **options), preprocessing=Preprocessing(exif_orientation=False)
    )
    assert (result.width, result.height) == (90, 70)
    np.testing.assert_array_equal(result.pixels, resized(picture))


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(value: int) -> None:
    assert_pixels(encode(RGB, "PNG", exif=exif(value)), RGB)


def _odd_exif(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    body = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body + b"\0\0\0\0"


TURN = (ORIENTATION, 3, 1, b"\0\x06\0\0")
BROKEN_EXIF = {
    "not a TIFF": b"Exif\0\0garbage",
    "empty": b"Exif\0\0",
    "cut in the header": b"Exif\0\0MM\0*\0",
    "directory beyond the end": b"Exif\0\0MM\0*\x7f\xff\xff\xff",
    "cut in the directory": exif(6)[:-8],
    "values beyond the end": _odd_exif([(270, 2, 5000, b"\0\0\xff\xff")]),
    "unknown type": _odd_exif([(270, 99, 1, b"\0\0\0\0")]),
    "orientation as text": _odd_exif([(ORIENTATION, 2, 4, b"six\0")]),
    "orientation as a fraction of nothing": _odd_exif([(ORIENTATION, 5, 1, b"\0\0\0\x08")]),
    "no orientation at all": _odd_exif([(ORIENTATION, 3, 0, b"\0\0\0\0")]),
}


@pytest.mark.parametrize("name", BROKEN_EXIF)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_broken_exif_block_does_not_fail_the_image(format: str, name: str) -> None:
    plain = encode(RGB, format)
    result = decode(encode(RGB, format, exif=BROKEN_EXIF[name]))
    np.testing.assert_array_equal(result.pixels, decode(plain).pixels)


ODD_EXIF = {
    "text of a wrong type": (270, 3, 1, b"\0\x01\0\0"),
    "width as text": (256, 2, 4, b"abc\0"),
    "width as a negative number": (256, 9, 1, b"\xff\xff\xff\xff"),
    "resolution over nothing": (282, 5, 1, b"\0\0\0\x08"),
    "resolution as a float": (282, 11, 1, b"\x7f\x80\0\0"),
    "pointer to a block that is not there": (34665, 4, 1, b"\xff\xff\xff\xff"),
    "pointer as text": (34665, 2, 4, b"abc\0"),
    "GPS pointer to itself": (34853, 4, 1, b"\0\0\0\x08"),
    "many shorts": (258, 3, 2, b"\0\x08\xff\xff"),
    "user comment as bytes": (37510, 7, 4, b"\xff\xfe\xfd\xfc"),
}


@pytest.mark.parametrize("name", ODD_EXIF)
def test_an_odd_tag_beside_the_orientation_does_not_stop_the_turning(name: str) -> None:
    block = _odd_exif(sorted([ODD_EXIF[name], TURN]))
    assert_pixels(encode(stored(RGB, 6), "PNG", exif=block), RGB)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    first = Image.fromarray(RGB).quantize(32)
    frames = [first.convert("RGB") if format in ("WEBP", "TIFF") else first]
    for seed in (1, 2):
        other = Image.fromarray(colours(seed=seed))
        frames.append(other.quantize(32) if format in ("GIF", "PNG") else other)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert_pixels(data, np.asarray(first.convert("RGB")))


def test_the_first_picture_of_a_stereo_pair() -> None:
    second = Image.fromarray(colours(seed=1))
    pair = encode(Image.fromarray(RGB), "MPO", save_all=True, append_images=[second], quality=90)
    alone = encode(RGB, "JPEG", quality=90)
    np.testing.assert_array_equal(decode(pair).pixels, decode(alone).pixels)


def test_extreme_shapes() -> None:
    for shape in ((1, 1), (1, 500), (500, 1), (2, 3000)):
        assert_pixels(encode(colours(*shape), "PNG"), colours(*shape))


def test_the_same_bytes_give_the_same_pixels_and_warnings_are_restored() -> None:
    before = list(warnings.filters)
    for data in FILES.values():
        np.testing.assert_array_equal(decode(data).pixels, decode(data).pixels)
    assert warnings.filters == before


# ---------------------------------------------------------------------------------------------------- refused


def test_empty() -> None:
    assert code_of(b"") == "empty_object"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404</body></html>", b"<html>", b"\r\n  <HTML><HEAD>", b"<head><title>", S3_ERROR,
    ],
)  # fmt: skip
def test_html_or_xml_error_pages(data: bytes) -> None:
    assert code_of(data) == "html_document"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf<!DOCTYPE html><html>", b"<!-- saved -->\n<html>",
        b"<Error><Code>AccessDenied</Code></Error>", b" " * 600 + b"<html>",
    ],
    ids=["byte order mark", "comment", "XML without its declaration", "spaces"],
)  # fmt: skip
def test_html_or_xml_error_pages_with_something_in_front(data: bytes) -> None:
    assert code_of(data) == "html_document"


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is text", np.random.default_rng(0).bytes(4096), b"\0" * 100, b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        encode(RGB, "PPM"), encode(RGB, "TGA"), encode(RGB, "ICO"),
        encode(RGB, "JPEG2000"),
    ],
    ids=["text", "random", "zeros", "pdf", "eps", "ppm", "tga", "ico", "jpeg2000"],
)  # fmt: skip
def test_unsupported_formats(data: bytes) -> None:
    assert code_of(data) == "unsupported_format"


def test_eps_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_a, **_k: pytest.fail("a program was started"))
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n") == "unsupported_format"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg-exif", "jpeg-progressive", "jpeg-cmyk", "png", "png-grey16", "webp"])
def test_truncated(kind: str, share: float) -> None:
    data = FILES[kind]
    assert code_of(data[: int(len(data) * share)]) == "truncated_image"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["gif", "tiff", "bmp", "bmp-palette"])
def test_truncated_in_other_formats(kind: str, share: float) -> None:
    data = FILES[kind]
    assert code_of(data[: int(len(data) * share)]) == "truncated_image"


@pytest.mark.parametrize("kind", ["tiff-lzw", "tiff-deflate", "tiff-jpeg", "tiff-group4"])
def test_a_truncated_compressed_tiff_is_refused(kind: str) -> None:
    """Its directory is at the end, so Pillow cannot tell it from a corrupt one."""
    data = FILES[kind]
    assert code_of(data[: len(data) // 2]) in ("truncated_image", "corrupt_image")


def test_corrupt_but_whole() -> None:
    damaged = bytearray(FILES["png"])
    damaged[len(damaged) // 2] ^= 0xFF
    assert code_of(bytes(damaged)) == "corrupt_image"
    assert code_of(png(8, 8, 8, 0, b"\x09" + b"\0" * 71)) in ("corrupt_image", "truncated_image")


def bombs() -> dict[str, bytes]:
    gif, webp = FILES["gif"], FILES["webp-animated"]
    canvas = webp.index(b"VP8X") + 12
    return {
        "png": png(30_000, 30_000, 1, 0, b"\0" * 1000),
        "jpeg": FILES["jpeg"].replace(b"\x08\x00\x1e\x00\x28", b"\x08\xff\x00\xff\x00"),
        "gif": gif[:6] + struct.pack("<HH", 65_000, 65_000) + gif[10:],
        "bmp": FILES["bmp"][:18] + struct.pack("<ii", 30_000, 30_000) + FILES["bmp"][26:],
        "tiff": tiff(np.zeros((4, 4), np.uint8), tags={256: 60_000, 257: 60_000}),
        "webp": webp[:canvas] + (16_382).to_bytes(3, "little") * 2 + webp[canvas + 6 :],
    }


@pytest.mark.parametrize("kind", list(bombs()))
def test_decompression_bombs_are_refused_before_decoding(kind: str) -> None:
    begin = time.monotonic()
    assert code_of(bombs()[kind]) == "decompression_bomb"
    assert time.monotonic() - begin < 1


def test_a_png_text_bomb_is_harmless() -> None:
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 30_000_000, 9))
    data = png(2, 2, 8, 0, b"\0\1\2\0\3\4", text)
    assert outcome(data) in ("decoded", "corrupt_image", "decompression_bomb")


def test_the_caps_are_inclusive() -> None:
    data = encode(RGB, "PNG")
    limits = Limits(max_bytes=len(data), max_pixels=90 * 70)
    np.testing.assert_array_equal(decode(data, limits).pixels, resized(RGB))
    assert code_of(data, Limits(max_bytes=len(data) - 1)) == "too_many_bytes"
    assert code_of(data, Limits(max_pixels=90 * 70 - 1)) == "too_many_pixels"


def test_many_bytes_of_rubbish_are_too_many_bytes_first() -> None:
    assert code_of(b"x" * 11, Limits(max_bytes=10)) == "too_many_bytes"


def test_pixels_without_a_scale_are_refused() -> None:
    assert code_of(tiff(np.full((4, 4), 0.5, np.float32))) == "unsupported_format"
    assert code_of(tiff(np.full((4, 4), -1, np.int32))) == "unsupported_format"
    assert code_of(tiff(np.full((4, 4), 65536, np.int32))) == "unsupported_format"


def test_an_error_survives_pickling_and_knows_its_codes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("corrupt_image", "said")))
    assert (error.code, error.message, str(error)) == ("corrupt_image", "said", "said")
    with pytest.raises(ValueError, match="unknown image error code 'nonsense'"):
        ImageError("nonsense", "said")


@pytest.mark.parametrize(
    "data",
    [FILES["png"][:40], FILES["webp"][:12], FILES["tiff-lzw"][:100], b"GIF89a"],
    ids=["png", "webp", "tiff", "gif"],
)
def test_the_same_bytes_give_the_same_message(data: bytes) -> None:
    """Messages are results: those of a rerun must be equal, so no address of an object may be in them."""
    messages, held = [], []
    for _ in range(3):
        with pytest.raises(ImageError) as caught:
            decode(data)
        held.append(caught.value)  # so that no address is used twice
        messages.append(caught.value.message)
    assert messages[0] == messages[1] == messages[2] and " at 0x" not in messages[0]


def test_memory_that_runs_out_is_not_called_a_corrupt_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says something of the machine, not of the image; wherever it happens, it is passed on."""

    def fail(*_args: object, **_options: object) -> None:
        raise MemoryError

    for target in ("anomaly_core.decoders.imagecodecs.spng_decode", "PIL.Image.Image.resize", "PIL.Image.open"):
        with monkeypatch.context() as patch:
            patch.setattr(target, fail)
            with pytest.raises(MemoryError):
                decode(FILES["png"])


# ---------------------------------------------------------------------------------------------------- fuzzing

edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "delete", "insert"]),
        st.one_of(st.integers(0, 120), st.integers(0, 4999)),
        st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255)),
    ),
    min_size=1,
    max_size=6,
)


def mutated(data: bytes, changes: list[tuple[str, int, int]], keep: float) -> bytes:
    result = bytearray(data)
    for kind, place, value in changes:
        position = place % max(len(result), 1)
        if kind == "set" and result:
            result[position] = value
        elif kind == "delete":
            del result[position : position + 1 + value % 8]
        elif kind == "insert":
            result.insert(position, value)
    return bytes(result[: int(len(result) * keep)])


@pytest.mark.parametrize("kind", list(FILES))
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(changes=edits, keep=st.one_of(st.just(1.0), st.just(1.0), st.floats(0, 1)))
def test_damaged_files_decode_or_raise_a_typed_error(
    kind: str, changes: list[tuple[str, int, int]], keep: float
) -> None:
    data = mutated(FILES[kind], changes, keep)
    begin = time.monotonic()
    assert outcome(data) in ("decoded", *ImageError.CODES)
    assert time.monotonic() - begin < 10


entry = st.tuples(
    st.sampled_from([256, 257, 258, 270, 282, 296, 305, 315, 700, 33432, 34665, 34853, 40965, 12345]),
    st.integers(0, 14),
    st.sampled_from([0, 1, 1, 1, 2, 4, 5, 100, 2**31, 2**32 - 1]),
    st.binary(min_size=4, max_size=4),
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(entries=st.lists(entry, max_size=5, unique_by=lambda e: e[0]), tail=st.binary(max_size=40))
def test_whatever_an_exif_block_says_the_image_is_scored(
    entries: list[tuple[int, int, int, bytes]], tail: bytes
) -> None:
    """Upright, or as it is stored where a value beyond the end of the block keeps Pillow from the orientation."""
    block = _odd_exif(sorted([*entries, TURN])) + tail
    picture = stored(RGB[:6, :5], 6)
    pixels = decode(encode(picture, "PNG", exif=block)).pixels
    assert np.array_equal(pixels, resized(RGB[:6, :5])) or np.array_equal(pixels, resized(picture))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    head=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"GIF89a", b"RIFF\0\1\0\0WEBP"]
    ),
    tail=st.binary(max_size=300),
)
def test_rubbish_after_a_magic_number_raises_a_typed_error(head: bytes, tail: bytes) -> None:
    assert outcome(head + tail) in ("decoded", *ImageError.CODES)


# -------------------------------------------------------------------------------------------------- normalise


def test_normalise_equals_torchvision_exactly() -> None:
    steps = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BILINEAR),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    pictures = [
        colours(300, 250),
        colours(100, 333, seed=1),
        np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3),
    ]
    ours = normalise(torch.from_numpy(np.stack([decode(encode(p, "PNG")).pixels for p in pictures])))
    theirs = torch.stack([steps(Image.fromarray(p)) for p in pictures])
    assert ours.shape == (3, 3, 224, 224) and ours.dtype == torch.float32
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_normalise_casts_last() -> None:
    pixels = torch.from_numpy(colours(224, 224))[None]
    half = normalise(pixels, torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half, normalise(pixels).bfloat16())


def test_normalise_knows_every_pixel_value() -> None:
    pixels = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    pixels[0, 0, :3] = torch.tensor([[0, 0, 0], [255, 255, 255], [51, 102, 204]])
    result = normalise(pixels)[0, :, 0, :3].double()
    mean, std = torch.tensor(preprocess.MEAN).double(), torch.tensor(preprocess.STD).double()
    for column, rgb in enumerate(([0, 0, 0], [1, 1, 1], [0.2, 0.4, 0.8])):
        torch.testing.assert_close(result[:, column], (torch.tensor(rgb).double() - mean) / std, rtol=1e-6, atol=1e-6)
