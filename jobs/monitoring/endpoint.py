"""The HTTP server that Prometheus scrapes: read-only, of one collector, and no part of the work."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

# Of a client that says nothing: it must not hold a thread for ever.
SILENCE_SECONDS = 10.0
POLL_SECONDS = 0.1  # after which a server that shall end does
_log = logging.getLogger(__name__)


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: scrapes are no events."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without asking a name server for this machine's name, which nobody uses here."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or said nothing is no error of ours."""
        _log.debug("a scrape failed", exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def serving(collector: Collector, host: str, port: int) -> Iterator[str]:
    """Serve a collector's metrics at /metrics for the length of the context; yields the address.

    port: 0 for any that is free. Raises OSError if the address cannot be listened on.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    server_class = _ServerV6 if ":" in host else _Server
    server = make_server(host, port, make_wsgi_app(registry), server_class, _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True)
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
