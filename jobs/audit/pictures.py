"""The pictures that a run wrote: what they are called, and how they are found wherever the run lies by now."""

from __future__ import annotations

import re
from typing import Literal

from jobs.storage import reading
from jobs.uris import join

Kind = Literal["heatmap", "overlay"]
KINDS: tuple[Kind, Kind] = ("heatmap", "overlay")
LARGEST = 4 * 2**20  # bytes; the audit's have some 50,000
_ENDINGS = {"heatmap": ".png", "overlay": "_overlay.png"}
_IMAGE_ID = re.compile(r"[0-9a-f]{32}")
_PNG = b"\x89PNG\r\n\x1a\n"


class NoPicture(Exception):
    """There is no such picture; the message says why."""


def picture_uri(heatmaps: str, category: str, image_id: str, kind: Kind) -> str:
    """Where a picture is. heatmaps: of its run, as RunFolder has it now: the table of one that was copied has the
    addresses of before.

    Raises NoPicture for names that would lead out of that folder: a table must not make a page show other files.
    """
    if not _IMAGE_ID.fullmatch(image_id) or category in ("", ".", "..") or "/" in category:
        raise NoPicture("the row names no picture of this run")
    return join(heatmaps, category, f"{image_id}{_ENDINGS[kind]}")


def read_picture(uri: str) -> bytes:
    """A picture as the bytes of a PNG file. Raises NoPicture, StorageAccessError."""
    try:
        with reading(uri) as file:
            data = bytes(file.read(LARGEST + 1))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NoPicture("the picture is gone") from error
    if not data.startswith(_PNG) or len(data) > LARGEST:
        raise NoPicture("the file is no picture of the audit")
    return data
