"""What the Ray tasks of a training share: their settings, the files and records that they leave, their progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anomaly_core.bundle_manifest import sha256
from anomaly_core.forms import Precision
from anomaly_core.preprocess import Preprocessing
from anomaly_core.training import Progress, Recipe
from jobs.storage import read_bytes, write_bytes
from jobs.uris import join

# Images of a category whose features are kept.
MOST = 1000


@dataclass(frozen=True)
class TaskSettings:
    """What every task needs. inputs: digest of all that goes into its model besides the images."""

    output: str
    recipe: Recipe
    device: str
    precision: Precision
    seed: int
    inputs: str
    preprocessing: Preprocessing


def finished(settings: TaskSettings, task: str, identity: str) -> dict[str, Any] | None:
    """The training figures of a task that was done before with the same images and settings, whose files are all there
    as it wrote them; or None."""
    try:
        record = json.loads(read_bytes(record_of(settings.output, task)))
        if record["inputs"] != settings.inputs or record["images"] != identity:
            return None
        if any(sha256(read_bytes(join(settings.output, name))) != digest for name, digest in record["files"].items()):
            return None
    except (FileNotFoundError, ValueError, KeyError):
        return None
    info: dict[str, Any] = record["info"]
    return info


def save(settings: TaskSettings, task: str, identity: str, files: Mapping[str, bytes], info: dict[str, Any]) -> None:
    """Write the files of a task, then the record that says that they are all there."""
    for name, data in files.items():
        write_bytes(join(settings.output, name), data)
    digests = {name: sha256(data) for name, data in files.items()}
    record = {"inputs": settings.inputs, "images": identity, "files": digests, "info": info}
    write_bytes(record_of(settings.output, task), json.dumps(record, indent=1).encode())


def record_of(output: str, task: str) -> str:
    """Where the record of a task is."""
    return join(output, "training", f"{task}.json")


def reporter(board: Any, task: str) -> Callable[[str], Progress]:
    """Makes, of the name of a stage, what tells the board how far the task is in it."""

    def stage(name: str) -> Progress:
        # Not waited for: a task that waits gives its CPUs back, and Ray would start another beside it.
        return lambda done, total: board.write.remote(task, name, done, total)

    return stage


def some(features: torch.Tensor, seed: int) -> torch.Tensor:
    """MOST of them at random; of whatever features of the same images, the same ones."""
    return features[torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(features))[:MOST]))].clone()
