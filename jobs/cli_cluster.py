"""The commands for a Ray cluster that runs elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

cluster_app = typer.Typer()


@cluster_app.command(context_settings={"allow_interspersed_args": False})
def submit(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="audit, retry-failed, rethreshold, train or add-category, with its options behind it.",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="Dashboard of the cluster's head.")
    ] = "http://127.0.0.1:8265",
    working_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder to send, in which the command stands, such as a checkout, which is then what runs "
            "(default: what is installed there)."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="What of --working-dir is not sent, as in .gitignore; what that file names, keys and models are left "
            "out anyway. May be repeated."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a variable that the job gets with the value that it has here, such as FSSPEC_S3; whoever may "
            "ask the cluster can read it, so no secret. May be repeated."
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the job's id and end, instead of following it.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Ctrl+C and SIGTERM leave the job running, instead of stopping it.")
    ] = False,
    attach: Annotated[
        str | None, typer.Option(metavar="JOB", help="Follow this job, instead of submitting one; Ctrl+C leaves it.")
    ] = None,
    or_attach: Annotated[
        bool,
        typer.Option("--or-attach", help="If a job works on the same run already, follow that; else this ends with 6."),
    ] = False,
) -> None:
    """Run a command on a Ray cluster, follow it, and end with its exit code."""
    from jobs.submit.asked import asked
    from jobs.submit.command import submit_command
    from jobs.submit.settings import Settings

    settings = Settings(
        address, working_dir, tuple(exclude or ()), tuple(env or ()), not no_wait, detach, attach, or_attach
    )
    raise typer.Exit(submit_command(lambda: asked(context.find_root(), words) if words else None, settings))
