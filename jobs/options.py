"""Options of the command line that several commands have, and what may be chosen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer


class Device(StrEnum):
    """Where the models run."""

    auto, cpu, cuda = "auto", "cpu", "cuda"


class Precision(StrEnum):
    """What the models compute in."""

    auto, float32, bfloat16 = "auto", "float32", "bfloat16"


class Heatmaps(StrEnum):
    """Which images get pictures: anomalous means every image that somebody must look at, review included."""

    anomalous, all, none = "anomalous", "all", "none"


class Scoring(StrEnum):
    """Where autoencoders run: in category actors of their own, or in the extracting actors."""

    actors, extractor = "actors", "extractor"


class Format(StrEnum):
    """Format of a manifest."""

    parquet, csv, jsonl = "parquet", "csv", "jsonl"


class Form(StrEnum):
    """Form of ResNet-50."""

    v15, v1 = "v1.5", "v1"


DeviceOption = Annotated[Device, typer.Option(help="Where the models run.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Must be the one that the bundle was calibrated in; auto takes it.")
]
ConfidenceOption = Annotated[
    float, typer.Option(min=0, max=1, help="Below this routing confidence a passing part goes to review.")
]
BackboneOption = Annotated[
    str | None, typer.Option(help="ResNet-50 weights: a .pth file, or a torchvision name such as IMAGENET1K_V2.")
]
FormOption = Annotated[
    Form | None, typer.Option(help="Form of the ResNet-50 in a weights file: v1.5 (torchvision) or v1 (Caffe).")
]
CategoryBudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Error budget of each category, declared or else routed; rows that have none count in --max-failed only "
        "(default: none; of a retry, that of the run)."
    ),
]
StallOption = Annotated[
    float, typer.Option(min=1, help="Seconds in which nothing moves after which the run ends; a rerun resumes.")
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-code-change", help="Finish a run that another version of the code began.")
]


def form_of(choice: Form | None) -> Literal["v1.5", "v1"] | None:
    """What the weights code calls it."""
    return None if choice is None else "v1" if choice is Form.v1 else "v1.5"


def listed(entries: list[str] | None) -> tuple[str, ...]:
    """Names of an option that may be repeated, and may hold several with commas between them."""
    return tuple(name.strip() for entry in entries or () for name in entry.split(",") if name.strip())
