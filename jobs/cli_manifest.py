"""``line-audit manifest``: commands on lists of images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jobs.options import (
    BaseOption,
    Format,
    FormatOption,
    InventoryDateOption,
    MapOption,
    PatternOption,
    SampleOption,
    SourcesArgument,
    WhereOption,
    joined,
)

manifest_app = typer.Typer(help="Make, look at and compare manifests: lists of images to audit.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
OutputOption = Annotated[str, typer.Option(help="Manifest to write (.parquet), a path or s3:// URI.")]


class Per(StrEnum):
    """What a sample has so many rows of."""

    line, camera, declared_category = "line", "camera", "declared_category"


@manifest_app.command("build")
def build(
    sources: SourcesArgument,
    output: OutputOption,
    pattern: PatternOption = None,
    format: FormatOption = None,
    columns: MapOption = None,
    base: BaseOption = None,
    inventory_date: InventoryDateOption = None,
    where: WhereOption = None,
    sample: SampleOption = None,
) -> None:
    """Write one Parquet manifest of the images below a prefix, or of manifests of any format."""
    from jobs.manifest.command import Asked, build_command

    asked = Asked(tuple(sources), _name(format), joined(columns), base, pattern, inventory_date, where, sample)
    raise typer.Exit(build_command(asked, output))


@manifest_app.command("inspect")
def inspect(
    sources: SourcesArgument,
    pattern: PatternOption = None,
    format: FormatOption = None,
    columns: MapOption = None,
    base: BaseOption = None,
    inventory_date: InventoryDateOption = None,
    where: WhereOption = None,
    most: Annotated[int, typer.Option(min=1, help="Values of a column to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Count images by line, camera, day, format and size, and show the first bad rows."""
    from jobs.manifest.command import Asked, inspect_command

    asked = Asked(tuple(sources), _name(format), joined(columns), base, pattern, inventory_date, where, None)
    raise typer.Exit(inspect_command(asked, most, as_json=as_json))


@manifest_app.command("validate")
def validate(
    sources: SourcesArgument,
    pattern: PatternOption = None,
    format: FormatOption = None,
    columns: MapOption = None,
    base: BaseOption = None,
    inventory_date: InventoryDateOption = None,
    where: WhereOption = None,
    show: Annotated[int, typer.Option(min=0, help="Bad rows to show.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Check every row as an audit would; exit with 3 if some are bad, with 2 if the manifest cannot be used."""
    from jobs.manifest.command import Asked, validate_command

    asked = Asked(tuple(sources), _name(format), joined(columns), base, pattern, inventory_date, where, None)
    raise typer.Exit(validate_command(asked, show, as_json=as_json))


@manifest_app.command("sample")
def sample(
    sources: SourcesArgument,
    output: OutputOption,
    rows: Annotated[int, typer.Option(min=1, help="Rows to take; with --per, of each.")] = 100,
    per: Annotated[Per | None, typer.Option(help="Take as many rows of each line, camera or category.")] = None,
    pattern: PatternOption = None,
    format: FormatOption = None,
    columns: MapOption = None,
    base: BaseOption = None,
    inventory_date: InventoryDateOption = None,
    where: WhereOption = None,
) -> None:
    """Write a manifest of some images: by chance, but the same ones every time."""
    from jobs.manifest.command import Asked, sample_command

    asked = Asked(tuple(sources), _name(format), joined(columns), base, pattern, inventory_date, where, None)
    raise typer.Exit(sample_command(asked, output, rows, None if per is None else per.value))


@manifest_app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="Manifest, S3 Inventory, prefix or glob of before.")],
    after: Annotated[str, typer.Argument(help="The same of now.")],
    output: Annotated[str | None, typer.Option(help="Table of the differences to write (.parquet).")] = None,
    pattern: PatternOption = None,
    format: FormatOption = None,
    columns: MapOption = None,
    base: BaseOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the images that are new, gone or other objects since another manifest."""
    from jobs.manifest.command import Asked, diff_command

    asked = Asked((before, after), _name(format), joined(columns), base, pattern, None, where, None)
    raise typer.Exit(diff_command(asked, output, as_json=as_json))


def _name(format: Format | None) -> str | None:
    return None if format is None else format.value
