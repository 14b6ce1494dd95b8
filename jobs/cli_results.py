"""Commands for people who look at results. Each imports what it needs, so that ``--help`` waits for nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.options import BackboneOption, Device, DeviceOption, FormOption, Precision, PrecisionOption, form_of

results_app = typer.Typer(rich_markup_mode=None)


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
