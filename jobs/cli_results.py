"""The commands that look into committed runs."""

from __future__ import annotations

from typing import Annotated

import typer

results_app = typer.Typer()


@results_app.command()
def show(
    run: Annotated[str, typer.Option(help="Folder of a committed run, <output>/runs/<date>/<name>.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE_ID", help="image_ids, or what no other one begins with.")
    ] = None,
    uri: Annotated[list[str] | None, typer.Option(help="Image by its uri in the manifest. May be repeated.")] = None,
    to: Annotated[str, typer.Option(help="Where the pictures go, a folder or s3:// prefix.")] = ".",
    bundle: Annotated[
        str | None, typer.Option(help="Where the run's bundle is now; only runs of older versions need it.")
    ] = None,
) -> None:
    """Show rows of a run: what was found, with image, heatmap and overlay at the image's own size."""
    from jobs.show.command import Settings, show_command

    raise typer.Exit(show_command(Settings(run, tuple(images or ()), tuple(uri or ()), to, bundle)))
