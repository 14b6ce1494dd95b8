"""The page served: by whom it may be reached, and how much it does at once."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
from gradio.themes.utils.fonts import LocalFont
from starlette.middleware import Middleware

from anomaly_core.preprocess import Limits
from jobs.app.guard import Guard
from jobs.audit import exits
from jobs.audit.exits import AuditError

THREADS = 16
WAITING = 64  # events of all users together; who comes later is told so
PORTS = 5  # that are tried where any will do
AT_ONCE = 4  # of each kind of event that sets no limit of its own
# Comes with Gradio. Its own choice of weights takes a half-bold file that lacks most letters.
_FONT = [LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]


@dataclass(frozen=True)
class Login:
    """The one user that is let in."""

    user: str
    password: str = field(repr=False)

    def __call__(self, user: str, password: str) -> bool:
        """Whether these are the ones; how long that takes tells nothing of them."""
        same_user = secrets.compare_digest(user.encode(), self.user.encode())
        return secrets.compare_digest(password.encode(), self.password.encode()) and same_user


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def launch(blocks: gr.Blocks, host: str, port: int, login: Login | None = None) -> str:
    """Serve in threads and return the URL. port 0 takes any free one. Raises OSError if it cannot listen there,
    AuditError if it listens but does not answer."""
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    address = host.strip("[]")
    for remaining in reversed(range(PORTS if port == 0 else 1)):
        try:
            return _launch(blocks, address, free_port(address, port), login)
        except OSError:  # somebody else may have been faster
            if not remaining:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def free_port(address: str, port: int) -> int:
    """The port, or any free one for 0. It is free when it is looked at. Raises OSError if nobody can listen there."""
    family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    with socket.create_server((address, port), family=family) as probe:
        return int(probe.getsockname()[1])


def _launch(blocks: gr.Blocks, address: str, port: int, login: Login | None) -> str:
    here = is_loopback if login is None and is_loopback(address) else None
    try:
        return _started(blocks, address, port, login, here)
    except ValueError as error:  # Gradio has asked its own page for an answer, several times
        blocks.close(verbose=False)
        raise AuditError(
            exits.FAILED,
            f"the page does not answer at {address}:{port}: this machine is too busy (try again), or a proxy stands "
            "before it (set NO_PROXY=localhost,127.0.0.1)",
        ) from error


def _started(
    blocks: gr.Blocks, address: str, port: int, login: Login | None, here: Callable[[str], bool] | None
) -> str:
    started = blocks.launch(
        server_name=f"[{address}]" if ":" in address else address,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,  # what is meant for people is raised as gr.Error, escaped; the page takes errors for HTML
        auth=login,
        max_threads=THREADS,
        max_file_size=Limits().max_bytes,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Base(primary_hue="slate", neutral_hue="slate", radius_size="sm", font=_FONT),
        css=Path(__file__).with_name("style.css").read_text(),
        app_kwargs={"middleware": [Middleware(Guard, here=here)]},
    )
    return str(started[1])
