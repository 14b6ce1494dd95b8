"""Augmented manifests of SageMaker (Ground Truth, Lookout for Vision): JSON Lines with source-ref and label attributes.

https://docs.aws.amazon.com/sagemaker/latest/dg/augmented-manifest.html
https://docs.aws.amazon.com/lookout-for-vision/latest/developer-guide/manifest-files.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from manifests.readers.batch import Problem
from manifests.readers.jsonl import JsonlReader
from manifests.readers.lines import Line
from manifests.readers.options import AS_THEY_ARE, ReadOptions
from manifests.schema import EMPTY_URI, ManifestError

SOURCE = "source-ref"
EMBEDDED = "source"
METADATA = "-metadata"
# Labels even where their metadata is left out; labels itself because that is the column's name.
_ALWAYS_LABELS = ("anomaly-label", "anomaly-mask-ref", "labels")
_AS_JSONL = "or have the file read as JSON Lines, format jsonl"


def is_sagemaker(first: Mapping[str, Any], options: ReadOptions = AS_THEY_ARE) -> bool:
    """Whether a file whose first object this is names its images as SageMaker does."""
    return (
        "uri" not in first and options.columns.get("uri", SOURCE) == SOURCE and (SOURCE in first or EMBEDDED in first)
    )


class SagemakerReader(JsonlReader):
    """Reads an augmented manifest: source-ref is the uri, and all label attributes become one JSON object, labels.

    A label attribute is a key that comes with another one named like it and -metadata, in whichever row; both are kept.
    The date in the metadata is that of the labelling, so captured_at is null unless a key of that name or a mapped one
    has it. Raises ManifestError as JsonlReader, and for a mapping of uri or labels.
    """

    def __init__(self, path: Path, options: ReadOptions = AS_THEY_ARE):
        if options.columns.get("uri", SOURCE) != SOURCE or "labels" in options.columns:
            raise ManifestError(
                f"{path}: in a SageMaker manifest {SOURCE} is the uri, and the label attributes are the labels; "
                f"leave uri and labels out of the column mapping, {_AS_JSONL}"
            )
        super().__init__(path, replace(options, columns={**options.columns, "uri": SOURCE}))

    def _named(self, keys: list[str]) -> dict[str, str]:
        if "uri" in keys:
            raise ManifestError(
                f"{self._path}: rows of a SageMaker manifest have {SOURCE}, but there is a key 'uri' too; "
                f"rename that one, {_AS_JSONL}"
            )
        if SOURCE not in keys:
            raise ManifestError(
                f"{self._path}: no row has a {SOURCE}, the address of its image; data that is embedded in the rows "
                f"({EMBEDDED}) cannot be read: write it to files or objects, {_AS_JSONL}"
            )
        columns = super()._named(keys)
        stems = {key.removesuffix(METADATA) for key in keys if key.endswith(METADATA)}
        labels = {*_ALWAYS_LABELS, *stems, *(stem + METADATA for stem in stems)}
        mapped = set(self._options.columns.values())
        return {key: "labels" if key in labels and key not in mapped else name for key, name in columns.items()}

    def _shaped(self, row: dict[str, Any], line: Line) -> tuple[dict[str, Any], Problem | None]:
        labels = {key: value for key, value in row.items() if self._columns[key] == "labels"}
        values = {self._columns[key]: value for key, value in row.items() if key not in labels}
        wrong = None
        if not values.get("uri") and EMBEDDED in row:
            wrong = Problem(
                EMPTY_URI,
                f"line {line.number}: the data is embedded in the row ({EMBEDDED}); only images that lie somewhere "
                f"({SOURCE}) can be read",
            )
        return values | ({"labels": labels} if labels else {}), wrong
