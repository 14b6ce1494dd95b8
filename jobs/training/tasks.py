"""What the Ray tasks of a training share: their settings, the files and records that they leave, their progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from anomaly_core.bundle_manifest import sha256
from anomaly_core.forms import Precision
from anomaly_core.preprocess import Preprocessing
from anomaly_core.training import Progress, Recipe
from jobs.storage import exists, read_bytes, write_bytes
from jobs.training.config import TrainingError
from jobs.training.images import content_of
from jobs.uris import is_local, join

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


class TaskRecord(BaseModel):
    """What a task that is done leaves beside its files. inputs: of its settings; images: identity of its images as they
    were listed; content: digest of their bytes; files: name to SHA-256; info: its figures."""

    inputs: str
    images: str
    content: str = ""
    files: dict[str, str]
    info: dict[str, Any]


def finished(settings: TaskSettings, task: str, identity: str, uris: Sequence[str]) -> TaskRecord | None:
    """The record of a task that was done before with the same images and settings, whose files are all there as it
    wrote them; or None.

    Local files with other times are read: a copy of a folder has the same images, and is no reason to begin again.
    """
    try:
        record = TaskRecord.model_validate_json(read_bytes(_record(settings.output, task)))
        if record.inputs != settings.inputs:
            return None
        if record.images != identity and not (all(map(is_local, uris)) and record.content == content_of(uris)):
            return None
        if any(sha256(read_bytes(join(settings.output, name))) != digest for name, digest in record.files.items()):
            return None
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None
    return record


def has_record(settings: TaskSettings, task: str) -> bool:
    """Whether a task was done before, with whatever images and settings."""
    return exists(_record(settings.output, task))


def save(
    settings: TaskSettings, task: str, identity: str, content: str, files: Mapping[str, bytes], info: dict[str, Any]
) -> TaskRecord:
    """Write the files of a task, then the record that says that they are all there."""
    for name, data in files.items():
        write_bytes(join(settings.output, name), data)
    digests = {name: sha256(data) for name, data in files.items()}
    record = TaskRecord(inputs=settings.inputs, images=identity, content=content, files=digests, info=info)
    write_bytes(_record(settings.output, task), record.model_dump_json(indent=1).encode())
    return record


def files_of(settings: TaskSettings, record: TaskRecord) -> dict[str, bytes]:
    """The files of a task that is done. Raises TrainingError if one is not as the task wrote it."""
    files = {}
    for name, digest in record.files.items():
        uri = join(settings.output, name)
        try:
            files[name] = read_bytes(uri)
        except FileNotFoundError:
            files[name] = b""
        if sha256(files[name]) != digest:
            raise TrainingError(
                f"{uri} is not there as it was written; --output must be storage that all nodes reach, of one training "
                "at a time: give the same command again"
            )
    return files


def reporter(board: Any, task: str) -> Callable[[str], Progress]:
    """Makes, of the name of a stage, what tells the board how far the task is in it."""

    def stage(name: str) -> Progress:
        # Not waited for: a task that waits gives its CPUs back, and Ray would start another beside it.
        return lambda done, total: board.write.remote(task, name, done, total)

    return stage


def some(features: torch.Tensor, seed: int) -> torch.Tensor:
    """MOST of them at random; of whatever features of the same images, the same ones."""
    return features[torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(features))[:MOST]))].clone()


def _record(output: str, task: str) -> str:
    return join(output, "training", f"{task}.json")
