"""The decoding child: images that hang, kill or starve their process cost themselves only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from anomaly_core.preprocess import Decoded, ImageError, decode
from jobs.audit.child import DecodingChild
from tests.anomaly_core.files import encode

PATIENCE = 60.0  # for images that are decoded at once, on a machine that others keep busy


def decoder(data: bytes) -> Decoded:
    """Decodes, unless the file says what else to do."""
    if data == b"spin":
        while True:
            pass
    if data == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"hog":
        return Decoded(np.ones((16 * 2**30,), np.uint8), 1, 1)
    if data == b"bug":
        raise KeyError("a bug in the decoder")
    if data == b"slow":
        time.sleep(0.5)
        return Decoded(np.zeros((224, 224, 3), np.uint8), os.getpid(), 1)
    return decode(data)


def png(mode: str = "RGB", size: tuple[int, int] = (60, 40), seed: int = 0) -> bytes:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return encode(Image.fromarray(values, mode), "PNG")


@pytest.fixture(scope="module")
def child() -> Iterator[DecodingChild]:
    child = DecodingChild(decoder)
    yield child
    child.close()
    assert multiprocessing.active_children() == []


def alive(child: DecodingChild) -> int:
    """The id of the child's process, after one more image went through it well."""
    got = child.decode(b"slow", PATIENCE)
    return got.width


def same(left: Decoded, right: Decoded) -> bool:
    return np.array_equal(left.pixels, right.pixels) and (left.width, left.height) == (right.width, right.height)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_an_image_is_what_it_is_without_the_child(child: DecodingChild, mode: str) -> None:
    for seed in range(3):
        data = png(mode, (50 + seed, 300), seed)
        got = child.decode(data, PATIENCE)
        assert same(got, decode(data))
        assert (got.pixels.dtype, got.pixels.shape) == (np.uint8, (224, 224, 3))
        assert (got.width, got.height) == (50 + seed, 300)


def test_an_image_larger_than_a_pipe_holds(child: DecodingChild) -> None:
    data = png("RGB", (1200, 900))
    assert len(data) > 3_000_000
    assert same(child.decode(data, PATIENCE), decode(data))


def test_what_the_decoder_says_of_an_image_is_passed_on(child: DecodingChild) -> None:
    process = alive(child)
    for data, code in [
        (b"", "empty_object"),
        (b"<!DOCTYPE html><html></html>", "html_document"),
        (b"something else", "unsupported_format"),
        (png()[:-60], "truncated_image"),
    ]:
        with pytest.raises(ImageError) as here:
            decode(data)
        with pytest.raises(ImageError) as there:
            child.decode(data, PATIENCE)
        assert (there.value.code, there.value.message) == (here.value.code, here.value.message)
        assert there.value.code == code
    assert alive(child) == process  # none of these cost a new process


def test_more_memory_than_the_cap_is_the_images_fault(child: DecodingChild) -> None:
    process = alive(child)
    with pytest.raises(ImageError) as caught:
        child.decode(b"hog", PATIENCE)
    assert caught.value.code in ("corrupt_image", "decoder_died")
    assert "memory" in caught.value.message
    assert alive(child) == process


def test_a_16_bit_image_below_the_cap_of_pixels_is_decoded_as_it_is_without_the_child(child: DecodingChild) -> None:
    """A resumed run gives what an undisturbed one gives. In a worker this takes 1.6 GB; 100 million are allowed."""
    got = child.decode(encode(np.full((8000, 8000), 514, np.uint16), "PNG", compress_level=1), PATIENCE)
    assert (got.width, got.height, set(got.pixels.ravel())) == (8000, 8000, {2})


def test_a_bug_in_the_decoder_is_told_with_the_image(child: DecodingChild) -> None:
    process = alive(child)
    with pytest.raises(ImageError) as caught:
        child.decode(b"bug", PATIENCE)
    assert caught.value.code == "decoder_died"
    assert caught.value.message == "the decoder failed: KeyError: 'a bug in the decoder'"
    assert alive(child) == process


def test_an_image_that_hangs_or_kills_its_process_costs_itself_only(child: DecodingChild) -> None:
    before = alive(child)
    start = time.monotonic()
    with pytest.raises(ImageError) as caught:
        child.decode(b"spin", 0.5)
    assert 0.5 <= time.monotonic() - start < 5
    assert (caught.value.code, caught.value.message) == ("decode_timeout", "not decoded within 0.5 s")
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)  # no process is left behind that burns a core
    with pytest.raises(ImageError) as caught:
        child.decode(b"die", PATIENCE)
    assert caught.value.code == "decoder_died"
    assert caught.value.message == "decoding this image ended its process (exit status -9)"
    image = png(seed=5)
    assert same(child.decode(image, PATIENCE), decode(image))
    assert alive(child) != before
    assert len(multiprocessing.active_children()) == 1


def test_a_child_that_was_killed_between_two_images_is_started_again(child: DecodingChild) -> None:
    os.kill(alive(child), signal.SIGKILL)  # as the kernel does when memory is short
    for process in multiprocessing.active_children():
        process.join(10)
    image = png(seed=6)
    try:
        assert same(child.decode(image, PATIENCE), decode(image))
    finally:
        child.close()


def test_closing_twice_or_before_the_first_image_is_fine() -> None:
    child = DecodingChild(decoder)
    child.close()
    child.close()
