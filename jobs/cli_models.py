"""The commands that make models and measure them: ``train``, ``add-category``, ``evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.options import (
    BackboneOption,
    ConfidenceOption,
    Device,
    DeviceOption,
    FormOption,
    Precision,
    PrecisionOption,
    TrainingBackboneOption,
    form_of,
    listed,
)

models_app = typer.Typer()


@models_app.command()
def train(
    images: Annotated[str, typer.Option(help="Images in MVTec AD layout, a folder or s3:// prefix.")],
    output: Annotated[str, typer.Option(help="Where the bundle goes, a folder or s3:// prefix.")],
    recipe: Annotated[
        str,
        typer.Option(
            help="How to train: default, reference (the reference pipeline's way), or small for some dozens of images."
        ),
    ] = "default",
    categories: Annotated[
        list[str] | None, typer.Option(help="Category to train; repeat, or separate by commas (default: all).")
    ] = None,
    backbone_weights: TrainingBackboneOption = None,
    backbone_form: FormOption = None,
    router_weights: Annotated[
        str | None,
        typer.Option(
            help="ResNet-18 weights: a .pth file, a torchvision name such as IMAGENET1K_V1 (default), or random:0."
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Rule for thresholds: conformal:0.01, with the share of good parts that may be rejected, or "
            "mean_plus_3sigma (default: the recipe's)."
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    precision: Annotated[Precision, typer.Option(help="What to compute in.")] = Precision.auto,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    jpeg_reduced: Annotated[
        bool, typer.Option("--jpeg-reduced", help="Decode large JPEGs at a fraction of their size, now and in audits.")
    ] = False,
) -> None:
    """Train a bundle: router, one autoencoder a category, thresholds."""
    from jobs.training.command import train_command

    code = train_command(
        {
            "images": images,
            "output": output,
            "recipe": recipe,
            "threshold": threshold,
            "categories": listed(categories),
            "backbone_weights": backbone_weights,
            "backbone_form": form_of(backbone_form),
            "router_weights": router_weights,
            "device": device.value,
            "precision": precision.value,
            "seed": seed,
            "jpeg_reduced": jpeg_reduced,
        }
    )
    raise typer.Exit(code)


@models_app.command("add-category")
def add_category(
    bundle: Annotated[str, typer.Option(help="Model bundle to add to, a folder or s3:// prefix.")],
    images: Annotated[
        str, typer.Option(help="Images of the new categories alone, in MVTec AD layout, a folder or s3:// prefix.")
    ],
    output: Annotated[str, typer.Option(help="Where the new bundle goes, a folder or s3:// prefix.")],
    device: DeviceOption = Device.auto,
) -> None:
    """Train categories that a bundle does not have; its other autoencoders and thresholds stay as they are."""
    from jobs.training.add import Addition
    from jobs.training.command import add_command

    raise typer.Exit(add_command(Addition(bundle, images, output, device.value)))


@models_app.command()
def evaluate(
    bundle: Annotated[str, typer.Option(help="Model bundle, a folder or s3:// prefix.")],
    images: Annotated[str, typer.Option(help="Test images and masks in MVTec AD layout, a folder or s3:// prefix.")],
    output: Annotated[str, typer.Option(help="Where tables and report go, a folder or s3:// prefix.")],
    categories: Annotated[
        list[str] | None, typer.Option(help="Category to evaluate; repeat, or separate by commas (default: all).")
    ] = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
    min_confidence: ConfidenceOption = 0.5,
    worst: Annotated[int, typer.Option(min=0, help="Pictures of escapes and of false rejects in each category.")] = 6,
    backbone_weights: BackboneOption = None,
    backbone_form: FormOption = None,
) -> None:
    """Measure a bundle on test images whose truth is known: scores, decisions, routing, defects."""
    from jobs.evaluation.command import Settings, evaluate_command

    settings = Settings(
        bundle,
        images,
        output,
        listed(categories),
        device.value,
        precision.value,
        min_confidence,
        worst,
        backbone_weights,
        form_of(backbone_form),
    )
    raise typer.Exit(evaluate_command(settings))
