"""An S3 endpoint that misbehaves on demand. It passes requests on to another server, except those a fault takes."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

# What S3 answers, by kind of fault: status and code of the error document.
ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "internal_error": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "missing": (404, "NoSuchKey"),
}
# What happens to a connection: reset before the answer, or in the middle of the body; closed there in good order; a
# body that pauses in its middle, or comes byte by byte; no answer at all; the request carried out, and its answer lost.
BROKEN = ("reset", "reset_body", "cut_body", "slow_body", "drops", "stall", "lost_answer")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "date"}


@dataclass
class Fault:
    """What goes wrong with which requests.

    kind: of ANSWERS or BROKEN. path: regular expression that must match in ``/bucket/key``. times: so many requests
    that match, None for all; each: so many for every path by itself. after: so many that match pass first. seconds: how
    long a pause, a stall, or the time between two drops is.
    """

    kind: str
    path: str = ""
    methods: tuple[str, ...] = ("GET",)
    times: int | None = 1
    each: bool = False
    after: int = 0
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ANSWERS and self.kind not in BROKEN:
            raise ValueError(f"no such fault: {self.kind}")
        self.seen, self.injected = 0, Counter[str]()

    def takes(self, method: str, path: str) -> bool:
        """Whether this request meets the fault; counts it."""
        if method not in self.methods or not re.search(self.path, path):
            return False
        self.seen += 1
        one = path if self.each else ""
        if self.seen <= self.after or (self.times is not None and self.injected[one] >= self.times):
            return False
        self.injected[one] += 1
        return True


class FaultyServer(ThreadingHTTPServer):
    """The endpoint. ``faults`` may be changed while it runs; the first that takes a request decides.

    injected: faults so far, by kind. reads: how often each path was asked for.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind).netloc
        self.faults: list[Fault] = []
        self.injected: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that takes a request, if any."""
        with self.lock:
            self.reads[path] += method == "GET"
            one = next((one for one in self.faults if one.takes(method, path)), None)
            if one is not None:
                self.injected[one.kind] += 1
            return one

    def shutdown_request(self, request: Any) -> None:
        """Close at once: an orderly end first would be read before a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that have given up are what faults are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, unquote(urlsplit(self.path).path))
        if fault is None:
            self._pass_on(body)
        elif fault.kind in ANSWERS:
            self._refuse(*ANSWERS[fault.kind])
        elif fault.kind == "reset":
            self._hang_up()
        elif fault.kind == "stall":
            time.sleep(fault.seconds)
            self._hang_up()
        else:
            self._pass_on(body, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def _pass_on(self, body: bytes, fault: Fault | None = None) -> None:
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if fault is not None and fault.kind == "lost_answer":
            self._hang_up()
            return
        length = response.headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP and name.lower() != "server":
                self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        if fault is None:
            self.wfile.write(data)
        else:
            self._write_badly(data, fault)

    def _write_badly(self, data: bytes, fault: Fault) -> None:
        if fault.kind == "drops":
            for n in range(len(data)):
                self.wfile.write(data[n : n + 1])
                time.sleep(fault.seconds)
            return
        half = len(data) // 2
        self.wfile.write(data[:half])
        if fault.kind == "slow_body":
            time.sleep(fault.seconds)
            self.wfile.write(data[half:])
        elif fault.kind == "reset_body":
            self._hang_up()
        else:
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        # Some servers repeat the request in what they say of it, with what it was signed with.
        said = f"Authorization: {self.headers.get('Authorization')}"
        document = f"<Error><Code>{code}</Code><Message>x {said}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(document)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(document)

    def _hang_up(self) -> None:
        # Without lingering the kernel sends a reset, not the orderly end of a stream.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: requests are counted by their faults."""


@contextmanager
def faulty_server(behind: str) -> Iterator[FaultyServer]:
    """A misbehaving endpoint before the server at ``behind``, for the length of the context."""
    server = FaultyServer(behind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
