"""Kills a process in the middle of what it does. Python runs this at its start where the folder is in PYTHONPATH.

LINE_AUDIT_KILL names a folder of orders, each a JSON file: who dies (``victim``: self; driver, whose id is ``pid``;
raylet, the parent of a worker; node, the raylet and all its workers) when ``target`` (module:name) is about to be
called or has returned (``when``: before, after) for the ``nth`` time in a process, with ``match`` (a regular
expression) in its texts and paths, a line each, in a process of the node ``node`` (LINE_AUDIT_NODE) if one is named.
It happens once: the file is renamed to *.done first, which only one process can.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

TARGETS = {
    "manifests.freeze": ["_write_parts"],
    "jobs.audit.record": ["RunRecord.save"],
    "jobs.audit.registry": ["Registry.owner"],
    "jobs.audit.load": ["Load.__call__", "Load._decode"],
    "jobs.audit.extract": ["Extract.__call__", "_Shard._route"],
    "jobs.audit.score": ["Scorer.score"],
    "jobs.audit.write": ["Write.__call__"],
    "jobs.audit.commit": ["commit", "count_rows"],
    "jobs.audit.redecide": ["Redecide.__call__"],
    "jobs.storage": ["write_bytes", "upload", "create", "delete", "_publish"],
    "s3fs.core": ["S3FileSystem._call_s3"],
}
FOLDER = os.environ.get("LINE_AUDIT_KILL", "")
_calls: Counter[str] = Counter()


def _strike(target: str, when: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
    for name in os.listdir(FOLDER):
        if not name.endswith(".json"):
            continue
        path = os.path.join(FOLDER, name)
        try:
            order = json.loads(Path(path).read_text())
        except FileNotFoundError:  # somebody else was first
            continue
        if (order["target"], order["when"]) != (target, when):
            continue
        if order["node"] and order["node"] != os.environ.get("LINE_AUDIT_NODE"):
            continue
        texts = "\n".join(str(value) for value in (*arguments, *named.values()) if isinstance(value, str | Path))
        if not re.search(order["match"], texts, re.MULTILINE):
            continue
        _calls[path] += 1
        if _calls[path] < order["nth"]:
            continue
        try:
            os.rename(path, path.removesuffix(".json") + ".done")
        except FileNotFoundError:
            continue
        _kill(order)


def _kill(order: dict[str, Any]) -> None:
    victims = {"self": os.getpid, "driver": lambda: order["pid"], "raylet": os.getppid, "node": os.getppid}
    pid = victims[order["victim"]]()
    if order["victim"] == "node":
        import psutil

        # The raylet after its workers and this process last, because who kills must live.
        for process in psutil.Process(pid).children():
            if process.pid != os.getpid():
                process.kill()
        os.kill(pid, signal.SIGKILL)
        pid = os.getpid()
    os.kill(pid, signal.SIGKILL)


def _deadly(function: Callable[..., Any], target: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        _strike(target, "before", arguments, named)
        result = function(*arguments, **named)
        _strike(target, "after", arguments, named)
        return result

    @functools.wraps(function)
    async def call_later(*arguments: Any, **named: Any) -> Any:
        _strike(target, "before", arguments, named)
        result = await function(*arguments, **named)
        _strike(target, "after", arguments, named)
        return result

    return call_later if inspect.iscoroutinefunction(function) else call


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of TARGETS as Python does, and makes their functions deadly once they are there."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name not in TARGETS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for dotted in TARGETS[name]:
                *owners, last = dotted.split(".")
                owner = functools.reduce(getattr, owners, module)
                setattr(owner, last, _deadly(getattr(owner, last), f"{name}:{dotted}"))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER:
    sys.meta_path.insert(0, _Finder())
