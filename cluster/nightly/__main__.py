"""``python -m cluster.nightly``: audit the night that is over, or begins, as a RayJob."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster.nightly.api import KubernetesApi
from cluster.nightly.dates import given_date, given_time, night_of, time_zone
from cluster.nightly.night import POLL_SECONDS, Night, audit_night
from cluster.nightly.rayjob import Owner
from jobs.commands import ended

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def nightly(
    template: Annotated[str, typer.Option(help="RayJob to take as a template; it is suspended.")] = "line-audit",
    run_date: Annotated[
        str | None,
        typer.Option(envvar="LINE_AUDIT_RUN_DATE", help="Night to audit, to catch up. The last one if not given."),
    ] = None,
    zone: Annotated[
        str, typer.Option("--time-zone", envvar="LINE_AUDIT_TIME_ZONE", help="Of the plant, as Europe/Berlin.")
    ] = "UTC",
    night_ends: Annotated[
        str, typer.Option(help="Local time at which a night is over: a start before it audits the day before.")
    ] = "12:00",
    config: Annotated[
        Path | None, typer.Option(help="The audit's own --config, to find run.json if the cluster is gone.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Kubernetes API, as of kubectl proxy; that of the pod's cluster if not given.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="With --server.")] = "line-audit",
    poll: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.01)] = POLL_SECONDS,
) -> None:
    """Start the audit of a night as a RayJob, follow it, and end with the audit's own exit code."""

    def work() -> int:
        if run_date:
            night = given_date(run_date)
        else:
            night = night_of(datetime.now(UTC), time_zone(zone), given_time(night_ends))
        api = KubernetesApi(server.rstrip("/"), namespace, None) if server else KubernetesApi.inside()
        return audit_night(api, Night(template, night, _owner(), config), poll)

    raise typer.Exit(ended(work))


def _owner() -> Owner | None:
    """The Job of this pod, as the CronJob tells it; None outside of one."""
    name, uid = os.environ.get("JOB_NAME"), os.environ.get("JOB_UID")
    return Owner(name, uid) if name and uid else None


if __name__ == "__main__":
    app()
