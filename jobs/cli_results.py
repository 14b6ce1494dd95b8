"""Commands on the results of committed runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

results_app = typer.Typer()


class Answers(StrEnum):
    """How rows are written."""

    table, csv, json, markdown = "table", "csv", "json", "markdown"


@results_app.command("sql")
def sql(
    output: Annotated[str, typer.Option(help="Where an audit wrote to, a folder or s3:// prefix.")],
    execute: Annotated[str | None, typer.Option("--execute", "-e", help="SQL to run, instead of a prompt.")] = None,
    file: Annotated[str | None, typer.Option(help="File with SQL to run, a path or s3:// URI.")] = None,
    format: Annotated[
        Answers | None, typer.Option(help="How rows are written (default: table on a terminal, else csv).")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Tell seconds and bytes read after each statement.")] = False,
    write_views: Annotated[
        str | None, typer.Option(help="Write the views as a .sql file for DuckDB's own command line, and end.")
    ] = None,
) -> None:
    """Query the results of committed runs with DuckDB: views results, runs, failures, nightly_rates and others."""
    from jobs.query.command import Asked, sql_command

    asked = Asked(output, execute, file, format.value if format else None, stats, write_views)
    raise typer.Exit(sql_command(asked))
