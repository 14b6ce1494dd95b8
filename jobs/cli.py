"""The command ``line-audit``. Each command imports what it needs, so that ``--help`` does not wait for torch."""

from __future__ import annotations

from typing import Annotated, Any

import psutil
import typer
from typer.core import TyperGroup

from jobs.cli_cluster import cluster_app
from jobs.cli_manifest import manifest_app
from jobs.cli_models import models_app
from jobs.cli_results import results_app
from jobs.cli_review import review_app
from jobs.options import (
    AcceptOption,
    BackboneOption,
    BaseOption,
    CategoryBudgetOption,
    ConfidenceOption,
    ConfigOption,
    Device,
    DeviceOption,
    ExtractorsOption,
    FormatOption,
    FormOption,
    Heatmaps,
    InventoryDateOption,
    LoadCpusOption,
    LogFormat,
    LogFormatOption,
    ManifestsOption,
    MapOption,
    MetricsHostOption,
    MetricsLingerOption,
    MetricsPortOption,
    NodeTimeoutOption,
    NotifyOn,
    NotifyOnOption,
    NotifyOption,
    PatternOption,
    PlacementOption,
    Placing,
    Precision,
    PrecisionOption,
    SampleOption,
    Scoring,
    SinceOption,
    StallOption,
    TrainingBackboneOption,
    WhereOption,
    begin_logging,
    form_of,
    joined,
)
from jobs.terminal import complain
from manifests.secrets import REFUSED, without_secrets


class Commands(TyperGroup):
    """The commands, none of which takes an address with credentials: a log, a table or an error would repeat them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does. Exits with 2 if an argument has credentials."""
        for word in args:
            if (shown := without_secrets(word)) != word:
                complain(f"{shown}: {REFUSED}")
                raise typer.Exit(2)
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="line-audit",
    help="Nightly audit of a production line's archived images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help cuts nothing on a narrow terminal
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app)
app.add_typer(results_app)
app.add_typer(cluster_app)
app.add_typer(manifest_app, name="manifest")
app.add_typer(review_app, name="review")


@app.command()
def audit(
    manifest: ManifestsOption,
    bundle: Annotated[str, typer.Option(help="Model bundle, a folder or s3:// prefix.")],
    output: Annotated[str, typer.Option(help="Where results, heatmaps and runs go, a folder or s3:// prefix.")],
    run_date: Annotated[
        str | None,
        typer.Option(help="Date of the run, YYYY-MM-DD (default: that of an unfinished run, else today)."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run: two lines can audit on one date.")] = "audit",
    heatmaps: Annotated[Heatmaps, typer.Option(help="Which images get pictures.")] = Heatmaps.anomalous,
    format: FormatOption = None,
    columns: MapOption = None,
    base: BaseOption = None,
    pattern: PatternOption = None,
    inventory_date: InventoryDateOption = None,
    where: WhereOption = None,
    since: SinceOption = None,
    sample: SampleOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Audit the first N rows only.")] = None,
    shard_rows: Annotated[int | None, typer.Option(min=1, max=4096, help="Rows a shard (default: by size).")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="URI prefix that images may come from, and no other (default: the manifest's bucket or folder). "
            "May be repeated."
        ),
    ] = None,
    max_failed: Annotated[str, typer.Option(help="Error budget: a share (1%) or a count (25).")] = "1%",
    max_failed_per_category: CategoryBudgetOption = None,
    stall_timeout: StallOption = 1800.0,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
    trust_declared: Annotated[
        bool,
        typer.Option(
            "--trust-declared", help="The declared category chooses the autoencoder (not of the reference's files)."
        ),
    ] = False,
    min_confidence: ConfidenceOption = 0.5,
    backbone_weights: BackboneOption = None,
    backbone_form: FormOption = None,
    scorers: Annotated[int | None, typer.Option(min=1, help="Scorer processes at most (default: by machine).")] = None,
    extractors: ExtractorsOption = None,
    load_cpus: LoadCpusOption = None,
    node_timeout: NodeTimeoutOption = 900.0,
    placement: PlacementOption = Placing.auto,
    scoring: Annotated[Scoring, typer.Option(help="Where autoencoders run.")] = Scoring.actors,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Images that go through the models at once (default: by device).")
    ] = None,
    fetch_threads: Annotated[int, typer.Option(min=1, max=256, help="Fetches at once in a load task.")] = 16,
    object_store_memory: Annotated[
        int | None,
        typer.Option(min=256, help="Object store of an embedded Ray, in MiB: what stages hold (default: by machine)."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of a node for an hour: plan and summary then tell the cost.")
    ] = None,
    notify: NotifyOption = None,
    notify_on: NotifyOnOption = NotifyOn.always,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_linger: MetricsLingerOption = 0.0,
    log_format: LogFormatOption = LogFormat.text,
    accept_code_change: AcceptOption = False,
    config: ConfigOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check arguments, bundle and manifest, time a sample, print the plan; write nothing."
        ),
    ] = False,
) -> None:
    """Audit the images of a manifest and publish one table of results."""
    begin_logging(log_format)
    from jobs.audit.command import run_command

    settings: dict[str, Any] = {
        "manifest": manifest[0],
        "also": tuple(manifest[1:]),
        "map": joined(columns),
        "base": base,
        "pattern": pattern,
        "inventory_date": inventory_date,
        "where": where,
        "since": since,
        "sample": sample,
        "bundle": bundle,
        "output": output,
        "run_date": run_date,
        "name": name,
        "heatmaps": heatmaps.value,
        "format": format.value if format else None,
        "limit": limit,
        "shard_rows": shard_rows,
        "allow": tuple(allow or ()),
        "device": device.value,
        "precision": precision.value,
        "trust_declared": trust_declared,
        "min_confidence": min_confidence,
        "backbone_weights": backbone_weights,
        "backbone_form": form_of(backbone_form),
        "scorers": scorers,
        "extractors": extractors,
        "load_cpus": load_cpus,
        "node_timeout": node_timeout,
        "placement": placement.value,
        "scoring": scoring.value,
        "micro_batch": micro_batch,
        "fetch_threads": fetch_threads,
        "object_store_memory": object_store_memory and object_store_memory * 2**20,
        "price_per_node_hour": price,
        "notify": tuple(notify or ()),
        "notify_on": notify_on.value,
        "metrics_port": metrics_port,
        "metrics_host": metrics_host,
        "metrics_linger": metrics_linger,
        "accept_code_change": accept_code_change,
        "max_failed": max_failed,
        "max_failed_per_category": max_failed_per_category,
        "stall_timeout": stall_timeout,
    }
    raise typer.Exit(run_command(settings, dry_run=dry_run, began=psutil.Process().create_time()))


@app.command("retry-failed")
def retry_failed(
    run: Annotated[str, typer.Option(help="Folder of a committed run, <output>/runs/<date>/<name>.")],
    bundle: Annotated[str | None, typer.Option(help="Where the run's bundle is now, if it was moved.")] = None,
    max_failed: Annotated[
        str | None, typer.Option(help="Error budget: a share (1%) or a count (25) (default: that of the run).")
    ] = None,
    max_failed_per_category: CategoryBudgetOption = None,
    stall_timeout: StallOption = 1800.0,
    device: DeviceOption = Device.auto,
    code: Annotated[
        list[str] | None,
        typer.Option(help="Error that was repaired, and is tried again too, such as missing_object. May be repeated."),
    ] = None,
    extractors: ExtractorsOption = None,
    load_cpus: LoadCpusOption = None,
    node_timeout: NodeTimeoutOption = 900.0,
    placement: PlacementOption = Placing.auto,
    backbone_weights: BackboneOption = None,
    backbone_form: FormOption = None,
    fetch_threads: Annotated[int, typer.Option(min=1, max=256, help="Fetches at once in a load task.")] = 16,
    notify: NotifyOption = None,
    notify_on: NotifyOnOption = NotifyOn.always,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_linger: MetricsLingerOption = 0.0,
    log_format: LogFormatOption = LogFormat.text,
    accept_code_change: AcceptOption = False,
) -> None:
    """Score the rows of a run again whose error can pass (throttled, server error, timeout, connection, access)."""
    begin_logging(log_format)
    from jobs.audit.command import retry_command

    settings: dict[str, Any] = {
        "bundle": bundle,
        "max_failed": max_failed,
        "max_failed_per_category": max_failed_per_category,
        "stall_timeout": stall_timeout,
        "device": device.value,
        "extractors": extractors,
        "load_cpus": load_cpus,
        "node_timeout": node_timeout,
        "placement": placement.value,
        "backbone_weights": backbone_weights,
        "backbone_form": form_of(backbone_form),
        "fetch_threads": fetch_threads,
        "notify": tuple(notify or ()),
        "notify_on": notify_on.value,
        "metrics_port": metrics_port,
        "metrics_host": metrics_host,
        "metrics_linger": metrics_linger,
        "accept_code_change": accept_code_change,
    }
    raise typer.Exit(retry_command(run, settings, code or ()))


@app.command()
def rethreshold(
    run: Annotated[str, typer.Option(help="Folder of a committed run, <output>/runs/<date>/<name>.")],
    threshold: Annotated[
        str,
        typer.Option(
            help="conformal:0.01, with the share of good parts that may be rejected, mean_plus_3sigma, or a "
            "thresholds.json."
        ),
    ],
    bundle: Annotated[str | None, typer.Option(help="Where the run's bundle is now, if it was moved.")] = None,
    no_pictures: Annotated[
        bool,
        typer.Option(
            "--no-pictures", help="Read no image: pictures of categories whose threshold changed are left out."
        ),
    ] = False,
    backbone_weights: BackboneOption = None,
    backbone_form: FormOption = None,
    notify: NotifyOption = None,
    notify_on: NotifyOnOption = NotifyOn.always,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Decide the rows of a run again from their stored scores, without a model, as a new version."""
    begin_logging(log_format)
    from jobs.audit.command import rethreshold_command

    settings: dict[str, Any] = {
        "bundle": bundle,
        "backbone_weights": backbone_weights,
        "backbone_form": form_of(backbone_form),
        "notify": tuple(notify or ()),
        "notify_on": notify_on.value,
    }
    raise typer.Exit(rethreshold_command(run, threshold, settings, redraw=not no_pictures))


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Folder for what the demo makes.")] = "demo-output",
    backbone_weights: TrainingBackboneOption = None,
    backbone_form: FormOption = None,
    router_weights: Annotated[str | None, typer.Option(help="ResNet-18 weights, as in train.")] = None,
) -> None:
    """Draw an archive, train on it, audit it from S3 to S3 on this machine, and compare with the truth."""
    from jobs.demo.command import demo_command

    raise typer.Exit(demo_command(output, backbone_weights, form_of(backbone_form), router_weights))


def main() -> None:
    """Run the command line; a usage error exits with 2, as everywhere."""
    app()
