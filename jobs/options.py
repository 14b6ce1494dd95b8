"""Options of the command line that several commands have, and what may be chosen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from jobs.settings_file import from_file


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


class Placing(StrEnum):
    """Which nodes work for which stages: by their labels, if a node has one, or any for all."""

    auto, pools, anywhere = "auto", "pools", "anywhere"


class Format(StrEnum):
    """Format of a manifest: of a file, an S3 Inventory, or what lies below a prefix."""

    parquet, csv, jsonl, sagemaker = "parquet", "csv", "jsonl", "sagemaker"
    inventory, prefix = "inventory", "prefix"


class NotifyOn(StrEnum):
    """What a notification is sent of: the end of every run, or what somebody should act upon."""

    always, problems = "always", "problems"


class Form(StrEnum):
    """Form of ResNet-50."""

    v15, v1 = "v1.5", "v1"


class LogFormat(StrEnum):
    """What a command writes: text for people, or a JSON object a line."""

    text, json = "text", "json"


ConfigOption = Annotated[
    str | None,
    typer.Option(
        is_eager=True,
        callback=from_file,
        help="YAML file of options, a path or s3:// URI, such as 'max_failed: 5%'; what is typed wins.",
    ),
]
LogFormatOption = Annotated[
    LogFormat, typer.Option(help="Text for people, or JSON: one object a line, workers included, and nothing else.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to serve Prometheus metrics of the run on; 0 for any (default: none)."),
]
MetricsHostOption = Annotated[str, typer.Option(help="Address to serve them on.")]
MetricsLingerOption = Annotated[
    float,
    typer.Option(min=0, max=600, help="Seconds to serve them on after the end, so that a scrape sees how it ended."),
]
NotifyOption = Annotated[
    list[str] | None,
    typer.Option(
        help="File that gets a JSON summary when the command ends, a path or s3:// URI, or a webhook's address; one "
        "that is a secret belongs into LINE_AUDIT_WEBHOOK of the environment. May be repeated."
    ),
]
NotifyOnOption = Annotated[
    NotifyOn, typer.Option(help="What to notify of: every end, or failures, exceeded budgets, drift and unusual rates.")
]
ManifestsOption = Annotated[
    list[str],
    typer.Option(
        help="Manifest, a path or s3:// URI: Parquet, CSV, JSONL, SageMaker or Lookout, an S3 Inventory, a folder or "
        "prefix with images, or a glob. May be repeated."
    ),
]
SourcesArgument = Annotated[
    list[str],
    typer.Argument(help="Manifests, S3 Inventories, folders or prefixes with images, globs; paths or s3:// URIs."),
]
FormatOption = Annotated[Format | None, typer.Option(help="Format of the manifest (default: detected).")]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", help="Columns under other names, such as uri=s3_key,captured_at=ts. May be repeated."),
]
BaseOption = Annotated[
    str | None,
    typer.Option(help="What relative uris are put behind, such as s3://plant/ (default: the manifest's folder)."),
]
PatternOption = Annotated[
    str | None,
    typer.Option(
        help="What the path of an image says, such as '{line}/{camera}/{captured_at:%Y-%m-%d}/*'. "
        "Fields: line, camera, captured_at, declared_category. For prefixes and S3 Inventories."
    ),
]
InventoryDateOption = Annotated[
    str | None, typer.Option(help="Day of the S3 Inventory to take, YYYY-MM-DD (default: the newest).")
]
WhereOption = Annotated[
    str | None, typer.Option(help="Only rows for which this is true (SQL), such as \"line = 'L3' and size > 0\".")
]
SampleOption = Annotated[
    str | None, typer.Option(help="Only such a share of the images, 1%; the same ones every time.")
]
SinceOption = Annotated[
    str | None, typer.Option(help="Only images that are new since a time (2025-03-01T22:00Z) or since the last-run.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where the models run.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Must be the one that the bundle was calibrated in; auto takes it.")
]
ConfidenceOption = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Below this routing confidence a passing part goes to review (not of the reference's files)."
    ),
]
TrainingBackboneOption = Annotated[
    str | None,
    typer.Option(
        help="ResNet-50 weights: a .pth file, a torchvision name such as IMAGENET1K_V2 (default), or random:0, 0 being "
        "the seed."
    ),
]
BackboneOption = Annotated[
    str | None,
    typer.Option(
        help="ResNet-50 weights for the reference's files, which have none: a .pth file, or a torchvision name "
        "(default: IMAGENET1K_V2). A bundle of ours has its own."
    ),
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
ExtractorsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Extracting actors at most (default: by machine). Of a cluster, as many GPUs, or CPUs without any, "
        "are waited for.",
    ),
]
LoadCpusOption = Annotated[
    int | None, typer.Option(min=1, help="CPUs for loading that a cluster is asked for, and waited for.")
]
NodeTimeoutOption = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for them; then the run goes on with what is there.")
]
PlacementOption = Annotated[
    Placing, typer.Option(help="Whether nodes work by their label line-audit/pool (auto: if a node has one).")
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


def begin_logging(choice: LogFormat) -> None:
    """Write logs in this format from now on. Call it before anything else of a command is imported."""
    if choice is LogFormat.json:
        from jobs.monitoring import logs

        logs.begin()


def joined(mappings: list[str] | None) -> str | None:
    """Several mappings of columns as one."""
    return ",".join(mappings) if mappings else None


def listed(entries: list[str] | None) -> tuple[str, ...]:
    """Names of an option that may be repeated, and may hold several with commas between them."""
    return tuple(name.strip() for entry in entries or () for name in entry.split(",") if name.strip())
