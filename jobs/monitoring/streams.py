"""Standard output and error as JSON lines, whoever writes there: Ray, which prints what its workers print, libraries,
tracebacks, and C++ code. What is such a line already passes as it is."""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import io
import json
import os
import re
import sys
import threading
from contextlib import suppress
from typing import TextIO

from jobs.monitoring.logs import line

KEYS = {"time", "level", "logger", "message", "run_id", "shard", "node", "pid"}
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What Ray puts before a line of a worker: "(load_shard pid=12, ip=10.0.0.7) ...", "(MapBatches(f) pid=12) ...".
_WORKER = re.compile(r"\((?:(?P<who>.{1,200}?) )?pid=(?P<pid>\d+)(?:, ip=(?P<ip>[0-9a-fA-F.:]+))?\) ?", re.DOTALL)
_PIPE_BYTES = 2**20
_END_SECONDS = 1.0


def redirect() -> None:
    """Replace this process's standard output and error.

    Python writes at once. Other code writes to the descriptors, which become pipes that a thread reads; a crash of the
    interpreter is told on the real standard error, as text, because no thread reads any more.
    """
    lock = threading.Lock()
    targets = [_stream(os.dup(descriptor)) for descriptor in (1, 2)]
    for descriptor, target in zip((1, 2), targets, strict=True):
        _pump(descriptor, target, lock)
    streams = [JsonLines(target, name, lock) for target, name in zip(targets, ("stdout", "stderr"), strict=True)]
    sys.stdout, sys.stderr = streams
    faulthandler.enable(targets[1])
    for stream in streams:
        atexit.register(stream.finish)


class JsonLines(io.TextIOBase):
    """A text stream that writes what it gets to ``target`` as JSON lines: one for each write that ends a line, with the
    line breaks within it, so that a text that was printed at once stays together. lock: of all that write there."""

    def __init__(self, target: TextIO, name: str, lock: threading.Lock):
        self._target, self._name, self._lock, self._begun = target, name, lock, threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the target's; lines are ASCII."""
        return "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never, so that nobody draws."""
        return False

    def fileno(self) -> int:
        """Of the target."""
        return self._target.fileno()

    def write(self, text: str) -> int:
        """Take text; it is written when it ends a line."""
        whole = getattr(self._begun, "text", "") + text  # of this thread: print() writes a line and its end apart
        if whole.endswith("\n"):
            self._begun.text = ""
            self._put(whole)
        else:
            self._begun.text = whole
        return len(text)

    def finish(self) -> None:
        """Write what this thread has begun and not ended."""
        text, self._begun.text = getattr(self._begun, "text", ""), ""
        self._put(text)

    def _put(self, text: str) -> None:
        shown = as_json(text, self._name)
        if shown is not None:
            with self._lock:
                self._target.write(shown + "\n")
                self._target.flush()


def as_json(text: str, name: str) -> str | None:
    """A text that somebody wrote as a line of the log, None if there is nothing in it. name: of the stream."""
    plain = _ANSI.sub("", text).rstrip()
    if not plain:
        return None
    worker = _WORKER.match(plain)
    said = plain[worker.end() :] if worker else plain
    if _is_line(said):
        return said
    if worker is None:
        return line(said.removeprefix("line-audit: "), "INFO", name)
    return line(said, "INFO", f"ray.{worker['who'] or 'worker'}", node=worker["ip"], pid=int(worker["pid"]))


def _is_line(text: str) -> bool:
    if not text.startswith("{") or "\n" in text:
        return False
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.keys() >= KEYS


def _pump(descriptor: int, target: TextIO, lock: threading.Lock) -> None:
    """Make a descriptor a pipe whose lines come out of ``target``, which is what it was, as JSON."""
    name = {1: "stdout", 2: "stderr"}[descriptor]
    source, sink = os.pipe()
    with suppress(OSError):  # a system may allow less
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    # Who writes while it holds the interpreter's lock must not wait for our thread, which needs that lock.
    os.set_blocking(sink, False)
    os.dup2(sink, descriptor)
    os.close(sink)

    def pump() -> None:
        with open(source, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                shown = as_json(text, name)
                if shown is not None:
                    with lock:
                        target.write(shown + "\n")
                        target.flush()

    thread = threading.Thread(target=pump, name=f"json-{name}", daemon=True)
    thread.start()

    def end() -> None:
        os.dup2(target.fileno(), descriptor)  # which closes the pipe, unless a child still has it
        thread.join(_END_SECONDS)

    atexit.register(end)


def _stream(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", errors="replace", closefd=False)
