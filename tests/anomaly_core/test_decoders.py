"""The fast decoders against Pillow: the same pixels, or left to Pillow."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from anomaly_core.decoders import decode_plain
from anomaly_core.preprocess import ImageError, Preprocessing, decode
from tests.anomaly_core.files import encode
from tests.bundles import random_pixels

PICTURE = Image.fromarray(random_pixels(1, seed=6)[0]).resize((97, 83))


def _comment() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "Orientation of the camera: upright")
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta><rdf:Description photoshop:ColorMode='3'/></x:xmpmeta>")
    return info


PLAIN = {
    "png_rgb": encode(PICTURE, "PNG"),
    "png_grey": encode(PICTURE.convert("L"), "PNG"),
    "png_with_resolution": encode(PICTURE, "PNG", dpi=(300, 300)),
    "png_with_text": encode(PICTURE, "PNG", pnginfo=_comment()),
    "jpeg": encode(PICTURE, "JPEG", quality=90),
    "jpeg_progressive": encode(PICTURE, "JPEG", progressive=True),
    "jpeg_444": encode(PICTURE, "JPEG", subsampling=0),
    "jpeg_grey": encode(PICTURE.convert("L"), "JPEG"),
}


def by_pillow(data: bytes) -> tuple[str, np.ndarray] | None:
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        image.load()
    except Exception:  # as the decoders of Pillow raise it
        return None
    return image.mode, np.asarray(image)


def by_us(data: bytes) -> Image.Image | None:
    return decode_plain(Image.open(io.BytesIO(data), formats=("PNG", "JPEG")), data)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_taken_and_give_pillows_pixels(name: str) -> None:
    ours, theirs = by_us(PLAIN[name]), by_pillow(PLAIN[name])
    assert ours is not None and theirs is not None and ours.mode == theirs[0]
    np.testing.assert_array_equal(np.asarray(ours), theirs[1])


def _with_orientation() -> dict[str, object]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
EXIF_TEXT = "\nexif\n 32\n" + (b"Exif\0\0" + _with_orientation()["exif"].tobytes()[6:]).hex()  # type: ignore[attr-defined]


def _text(keyword: str, text: str, zip: bool = False) -> PngInfo:
    info = PngInfo()
    info.add_itxt(keyword, text, zip=zip) if keyword.startswith("XML") else info.add_text(keyword, text)
    return info


LEFT = {
    "palette": encode(PICTURE.quantize(16), "PNG"),
    "one bit": encode(PICTURE.convert("1"), "PNG"),
    "alpha": encode(PICTURE.convert("RGBA"), "PNG"),
    "16 bits": encode(Image.fromarray(np.full((9, 9), 4097, np.uint16)), "PNG"),
    "a transparent colour": encode(PICTURE, "PNG", transparency=(1, 2, 3)),
    "an orientation": encode(PICTURE, "PNG", **_with_orientation()),
    "an orientation as text": encode(PICTURE, "PNG", pnginfo=_text("Raw profile type exif", EXIF_TEXT)),
    "an orientation in XMP": encode(PICTURE, "PNG", pnginfo=_text("XML:com.adobe.xmp", XMP)),
    "an orientation in packed XMP": encode(PICTURE, "PNG", pnginfo=_text("XML:com.adobe.xmp", XMP, zip=True)),
    "an animation": encode(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)]),
    "CMYK": encode(PICTURE.convert("CMYK"), "JPEG"),
    "another format": encode(PICTURE, "BMP"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_plain_is_left_to_pillow(name: str) -> None:
    image = Image.open(io.BytesIO(LEFT[name]))
    assert decode_plain(image, LEFT[name]) is None
    turned = "orientation" in name
    result = decode(LEFT[name])
    assert (result.width, result.height) == (image.size[::-1] if turned else image.size)


def test_a_plain_file_is_not_loaded_by_pillow() -> None:
    with mock.patch("anomaly_core.preprocess._load", side_effect=AssertionError):
        for name, data in PLAIN.items():
            assert decode(data).pixels.shape == (224, 224, 3), name


@settings(max_examples=600, deadline=None)
@given(
    name=st.sampled_from(sorted(PLAIN)),
    how=st.sampled_from(["cut", "changed", "deleted", "inserted"]),
    where=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=24),
)
def test_damaged_files_are_never_accepted_where_pillow_refuses(name: str, how: str, where: float, junk: bytes) -> None:
    data = PLAIN[name]
    at = int(where * len(data))
    data = {
        "cut": data[:at],
        "changed": data[:at] + junk + data[at + len(junk) :],
        "deleted": data[:at] + data[at + len(junk) :],
        "inserted": data[:at] + junk + data[at:],
    }[how]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        except Exception:  # Pillow does not even open it: decode() ends there
            return
        if header.width * header.height > 10**6:
            return
        ours, theirs = decode_plain(header, data), by_pillow(data)
    if ours is not None:
        assert theirs is not None, "accepted, though Pillow refuses it"
        np.testing.assert_array_equal(np.asarray(ours), theirs[1])


def test_reduced_jpegs_are_decoded_at_half_their_size_and_others_are_not() -> None:
    large = Image.fromarray(random_pixels(1, seed=8)[0]).resize((1000, 900))
    reduced = Preprocessing(jpeg_reduced=True)
    data = encode(large, "JPEG", quality=95)
    ours, full = decode(data, preprocessing=reduced), decode(data)
    assert (ours.width, ours.height) == (full.width, full.height) == (1000, 900)
    half = Image.open(io.BytesIO(data))
    half.draft(None, (448, 448))
    assert half.size == (500, 450)
    np.testing.assert_array_equal(ours.pixels, np.asarray(half.resize((224, 224), Image.Resampling.BILINEAR)))
    assert (ours.pixels != full.pixels).any()
    for same in (PLAIN["jpeg"], encode(large, "PNG")):
        np.testing.assert_array_equal(decode(same, preprocessing=reduced).pixels, decode(same).pixels)


def test_a_reduced_jpeg_is_turned_upright_and_tells_its_full_size() -> None:
    large = Image.fromarray(random_pixels(1, seed=8)[0]).resize((1000, 900))
    turned = decode(encode(large, "JPEG", **_with_orientation()), preprocessing=Preprocessing(jpeg_reduced=True))
    assert (turned.width, turned.height) == (900, 1000)


def test_a_truncated_reduced_jpeg_is_refused() -> None:
    data = encode(PICTURE.resize((1000, 900)), "JPEG")
    with pytest.raises(ImageError) as caught:
        decode(data[: len(data) // 2], preprocessing=Preprocessing(jpeg_reduced=True))
    assert caught.value.code == "truncated_image"


@pytest.mark.shared
def test_native_images_give_pillows_pixels(shared_root: Path) -> None:
    paths = sorted((shared_root / "data" / "native").rglob("*.png"))
    assert len(paths) > 20
    for path in paths:
        for data in (path.read_bytes(), encode(Image.open(path).convert("RGB"), "JPEG", quality=92)):
            ours, theirs = by_us(data), by_pillow(data)
            assert ours is not None and theirs is not None, path
            np.testing.assert_array_equal(np.asarray(ours), theirs[1])
