"""The commands that read the results of committed runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jobs.options import BackboneOption, Device, DeviceOption, FormOption, Precision, PrecisionOption, form_of

results_app = typer.Typer()


class Question(StrEnum):
    """What two runs are compared as: decisions on the same images, or rates of two nights."""

    images, rates = "images", "rates"


class Answers(StrEnum):
    """How rows are written."""

    table, csv, json, markdown = "table", "csv", "json", "markdown"


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


@results_app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="RUN_A", help="Folder of a committed run: <output>/runs/<date>/<name>.")],
    b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run to hold against it.")],
    version_a: Annotated[int | None, typer.Option(min=1, help="An earlier version of A's results.")] = None,
    version_b: Annotated[int | None, typer.Option(min=1, help="An earlier version of B's results.")] = None,
    question: Annotated[
        Question | None, typer.Option("--as", help="What to compare (default: images if most are shared, else rates).")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Images that changed most to show.")] = 12,
    max_changed: Annotated[
        str | None,
        typer.Option(help="Exit with 3 if more decisions on the same images changed: a share (0.5%) or a count (25)."),
    ] = None,
    max_rate_change: Annotated[
        str | None,
        typer.Option(help="Exit with 3 if a rate of two nights changed by more than that (1%, in points)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Page to write, a path or s3:// URI.")] = None,
) -> None:
    """Hold two runs against each other: the same images, or two nights."""
    from jobs.compare.command import compare_command

    code = compare_command(
        a,
        b,
        version_a=version_a,
        version_b=version_b,
        question=None if question is None else question.value,
        show=show,
        max_changed=max_changed,
        max_rate_change=max_rate_change,
        as_json=as_json,
        html=html,
    )
    raise typer.Exit(code)


@results_app.command("app")
def browser_app(
    bundle: Annotated[
        str | None, typer.Option(help="Model bundle, a folder or s3:// prefix: to inspect single images.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Output of audits, a folder or s3:// prefix: to browse runs and record verdicts.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 7860,
    user: Annotated[
        str | None,
        typer.Option(
            help="User that must log in; the password is LINE_AUDIT_PASSWORD of the environment, the file's, or typed."
        ),
    ] = None,
    password_file: Annotated[str | None, typer.Option(help="File whose first line is the password of --user.")] = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
    backbone_weights: BackboneOption = None,
    backbone_form: FormOption = None,
) -> None:
    """Inspect single images and browse the results of runs in the browser."""
    from jobs.app.command import AppSettings, app_command

    settings = AppSettings(
        bundle=bundle,
        output=output,
        host=host,
        port=port,
        user=user,
        password_file=password_file,
        device=device.value,
        precision=precision.value,
        weights=backbone_weights,
        form=form_of(backbone_form),
    )
    raise typer.Exit(app_command(settings))


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


@results_app.command()
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


@results_app.command()
def exporter(
    output: Annotated[str, typer.Option(help="Where audits write to, a folder or s3:// prefix.")],
    name: Annotated[list[str] | None, typer.Option(help="Only runs of this name. May be repeated.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.")] = 9465,
    deadline: Annotated[str, typer.Option(help="Time of day by which a night must be done, HH:MM.")] = "06:00",
    time_zone: Annotated[str, typer.Option(help="Time zone of the deadline, such as Europe/Berlin.")] = "UTC",
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="What a run may cost, in the currency of --price (default: anything).")
    ] = None,
) -> None:
    """Serve Prometheus metrics of the nights in an output: last success, failures, drift, cost, unfinished runs."""
    from jobs.monitoring.command import exporter_command

    raise typer.Exit(exporter_command(output, name or (), host, port, deadline, time_zone, max_cost))


@results_app.command()
def verify(
    run: Annotated[str, typer.Argument(help="Folder of a committed run: <output>/runs/<date>/<name>, or s3:// URI.")],
    bundle: Annotated[
        str | None, typer.Option(help="Where the run's bundle is now (default: where it was then).")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Images to score again; 0 needs no bundle.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Which images are chosen.")] = 0,
    device: DeviceOption = Device.auto,
    backbone_weights: BackboneOption = None,
    backbone_form: FormOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check that a committed run is whole: rows, digests, schema, pictures, and scores of a sample."""
    from jobs.verify.command import verify_command
    from jobs.verify.run import Settings

    settings = Settings(run, bundle, sample, seed, device.value, backbone_weights, form_of(backbone_form))
    raise typer.Exit(verify_command(settings, as_json=as_json))
