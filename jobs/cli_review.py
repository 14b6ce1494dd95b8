"""The commands that have people look at rows of a run."""

from __future__ import annotations

from typing import Annotated

import typer

review_app = typer.Typer(help="Have people look at rows of a run, and learn from it.", no_args_is_help=True)


@review_app.command("queue")
def review_queue(
    run: Annotated[str, typer.Option(help="Folder of a committed run, <output>/runs/<date>/<name>.")],
    output: Annotated[str, typer.Option(help="CSV to write, a path or s3:// URI.")],
    nearest: Annotated[int, typer.Option(min=0, help="Rows whose score is nearest to the threshold.")] = 50,
    random: Annotated[int, typer.Option(min=0, help="Random sample of the parts that passed.")] = 50,
) -> None:
    """Write the review queue of a run with other numbers than every run's own one has."""
    from jobs.review_command import queue_command

    raise typer.Exit(queue_command(run, nearest, random, output))


@review_app.command("import")
def review_import(
    verdicts: Annotated[str, typer.Argument(help="CSV with columns image_id and verdict, good or defective.")],
    run: Annotated[str, typer.Option(help="Folder of a committed run, <output>/runs/<date>/<name>.")],
    queue: Annotated[
        str | None, typer.Option(help="Queue that the images were chosen by, if not the run's own.")
    ] = None,
) -> None:
    """Take over what people said, and estimate how many defective parts passed."""
    from jobs.review_command import import_command

    raise typer.Exit(import_command(run, verdicts, queue))
