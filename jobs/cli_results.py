"""The commands that look at the results of committed runs."""

from __future__ import annotations

from typing import Annotated

import typer

results_app = typer.Typer()


@results_app.command()
def report(
    run: Annotated[str, typer.Argument(help="Folder of a committed run: <output>/runs/<date>/<name>, or s3:// URI.")],
    bundle: Annotated[
        str | None, typer.Option(help="Where the run's bundle is now, for its calibration scores (default: as then).")
    ] = None,
    nights: Annotated[int, typer.Option(min=0, help="Earlier nights of the same name to compare with, at most.")] = 30,
) -> None:
    """Write the report of a run again, report.html and report.json in its folder."""
    from jobs.report.command import report_command

    raise typer.Exit(report_command(run, bundle, nights))
