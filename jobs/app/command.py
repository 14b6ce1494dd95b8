"""``line-audit app``: reads what it shows, says where it can be reached, and serves until it is interrupted."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from rich.text import Text

from anomaly_core.bundle_manifest import BundleError
from anomaly_core.device import resolve_device
from anomaly_core.forms import BackboneForm
from anomaly_core.inspector import Inspector
from jobs.app.page import build
from jobs.app.password import password_of
from jobs.app.runs import Runs
from jobs.app.serve import Login, is_loopback, launch
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.bundles import read_bundle, run_precision
from jobs.commands import ended
from jobs.storage import scratch
from jobs.terminal import console, note
from jobs.uris import normal

_OPEN = (
    "WARNING: no password. Whoever reaches {host} in the network sees every image and every result, and can record "
    "verdicts. Give --user, or leave out --host."
)


@dataclass(frozen=True)
class AppSettings:
    """What the app shows, and to whom. bundle, output: URIs; without a bundle runs are browsed only, without an output
    single images are inspected only. user: that must log in. weights, form: of a bundle of the reference's files."""

    bundle: str | None
    output: str | None
    host: str = "127.0.0.1"
    port: int = 7860
    user: str | None = None
    password_file: str | None = None
    device: str = "auto"
    precision: str = "auto"
    weights: str | None = None
    form: BackboneForm | None = None


def app_command(settings: AppSettings) -> int:
    """Serve the app until interrupted; returns the exit code: 0, 2 usage, 4 storage."""
    return ended(lambda: _serve(settings))


def _serve(settings: AppSettings) -> int:
    if settings.bundle is None and settings.output is None:
        raise AuditError(exits.USAGE, "name a --bundle to inspect images with, an --output to browse, or both")
    if (
        settings.user is not None and not settings.user.strip()
    ):  # as by a script's empty variable: anybody would be let in
        raise AuditError(exits.USAGE, "--user is empty; name one, or leave it out to ask for no password")
    if settings.user is None and settings.password_file is not None:
        raise AuditError(exits.USAGE, "--password-file is of a --user; name one")
    login = None
    if settings.user is not None:
        login = Login(settings.user.strip(), password_of(settings.user, settings.password_file))
    inspector, warnings = _inspector(settings)
    runs = None
    if settings.output is not None:
        runs = Runs(normal(settings.output))
        if runs.latest() is None:
            note(f"{settings.output}: there is no committed run yet")
    if login is None and not is_loopback(settings.host):
        console.print(Text(_OPEN.format(host=settings.host), style="bold white on red"), soft_wrap=True)
    with scratch() as folder:  # uploads go where nobody else's are, and are gone afterwards
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        blocks = build(inspector, warnings, runs)
        try:
            url = launch(blocks, settings.host, settings.port, login)
        except OSError as error:
            raise AuditError(
                exits.USAGE,
                f"cannot listen on {settings.host}:{settings.port} ({error}); choose another --host or --port",
            ) from error
        console.print(f"Line Audit is at {url} - stop it with Ctrl+C", markup=False, soft_wrap=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        blocks.block_thread()
    return exits.COMMITTED


def _inspector(settings: AppSettings) -> tuple[Inspector | None, list[str]]:
    """The models, read once for all users, and what to tell of them."""
    if settings.bundle is None:
        return None, []
    try:
        device = resolve_device(settings.device)
        bundle = read_bundle(settings.bundle, settings.weights, settings.form)
        precision, warnings = run_precision(bundle, settings.precision, device)
        inspector = Inspector(bundle, device, precision)
    except (BundleError, ValueError) as error:
        raise AuditError(exits.USAGE, str(error)) from error
    for warning in (*bundle.warnings, *warnings):
        note(warning)
    return inspector, warnings
