"""Heatmap and overlay of the rows that want one; their names come from image_id, never from the image's own name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anomaly_core.heatmap import heatmap, overlay, png, relative_map
from anomaly_core.preprocess import SIZE
from jobs.audit.pictures import KINDS, picture_uri
from jobs.storage import write_bytes
from jobs.storage_errors import StorageAccessError
from manifests.secrets import redacted

WRITERS = 8


@dataclass(frozen=True)
class RenderSettings:
    """folder: URI below which pictures go, in one folder a category."""

    folder: str
    which: Literal["anomalous", "all", "none"]


def wanted(row: dict[str, Any], which: str) -> bool:
    """Whether a row gets pictures: scored ones, and with ``anomalous`` only those that somebody must look at."""
    if row["error_map"] is None or which == "none":
        return False
    return which == "all" or row["decision"] in ("anomalous", "review")


def render(rows: list[dict[str, Any]], settings: RenderSettings) -> None:
    """Write the pictures and set heatmap_path, overlay_path or render_error of each row.

    A picture that cannot be made never fails its row. Raises StorageAccessError if the storage refuses us.
    """
    for row in rows:
        row.update(heatmap_path=None, overlay_path=None, render_error=None)
    chosen = [row for row in rows if wanted(row, settings.which)]
    if chosen:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda row: _pictures(row, settings.folder), chosen))


def _pictures(row: dict[str, Any], folder: str) -> None:
    try:
        relative = relative_map(np.asarray(row["error_map"]).reshape(28, 28), row["threshold"], (SIZE, SIZE))
        picture = np.frombuffer(row["pixels"], np.uint8).reshape(SIZE, SIZE, 3)
        heat, over = (picture_uri(folder, row["category"], row["image_id"], kind) for kind in KINDS)
        write_bytes(heat, png(heatmap(relative)))
        write_bytes(over, png(overlay(relative, picture)))
        row.update(heatmap_path=heat, overlay_path=over)
    except StorageAccessError:
        raise
    except Exception as error:  # whatever it was, the score stands: it is told in the row
        row["render_error"] = redacted(f"{type(error).__name__}: {error}")[:300]
