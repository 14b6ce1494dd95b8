"""Where an audit is killed: every case, with the calls in which it happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Storage = Literal["local", "s3"]
Victim = Literal["driver", "self", "raylet", "node"]

# A file comes into being: renamed on a disk, put or copied on S3. "before": its temporary file is there, it is not.
PUT = "put"
_PUT = {
    "local": ("jobs.storage:_publish", ""),
    "s3": ("s3fs.core:S3FileSystem._call_s3", r"(?:put|copy)_object\n(?s:.*)"),
}


@dataclass(frozen=True)
class Order:
    """One kill, as the killer takes it (tests/faults/killer). driver: kill it instead of the process that calls."""

    when: Literal["before", "after"]
    target: str
    match: str = ""
    nth: int = 1
    victim: Victim = "self"
    node: str = ""

    def on(self, storage: Storage) -> dict[str, str | int]:
        """As JSON for the killer."""
        target, prefix = _PUT[storage] if self.target == PUT else (self.target, "")
        return {
            "target": target, "when": self.when, "match": prefix + self.match, "nth": self.nth, "victim": self.victim,
            "node": self.node,
        }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Starts that each die, and what is there when the last of them is dead.

    published: whether readers see the table then. prepared: the first start finds all shards written.
    """

    name: str
    starts: tuple[Order, ...]
    published: bool = False
    prepared: bool = False
    storages: Sequence[Storage] = ("local", "s3")


def _one(name: str, order: Order, **more: bool) -> Case:
    return Case(name, (order,), **more)


PART, RUN, LOCK, SHARD, TABLE = (
    r"manifest/part-00000\.parquet$", r"run\.json$", r"lock\.json$", r"shards/shard-\d+\.parquet$",
    r"results/.*audit\.parquet$",
)  # fmt: skip
SAVE, WRITE, UPLOAD = "jobs.audit.record:RunRecord.save", "jobs.storage:write_bytes", "jobs.storage:upload"
LOAD, DECODE = "jobs.audit.load:Load.__call__", "jobs.audit.load:Load._decode"
EXTRACT, ROUTE = "jobs.audit.extract:Extract.__call__", "jobs.audit.extract:_Shard._route"
SCORE, WRITER, REGISTRY = (
    "jobs.audit.score:Scorer.score",
    "jobs.audit.write:Write.__call__",
    "jobs.audit.registry:Registry",
)
REDECIDE = "jobs.audit.redecide:Redecide.__call__"
COMMIT, COUNTS = "jobs.audit.commit:commit", "jobs.audit.commit:count_rows"
PICTURE = r"/[0-9a-f]+\.png$"
REPORT = r"report\.html$"

# The driver dies in what it does itself, before its workers do anything.
BEGINNING = [
    _one("the lock is there and nothing else", Order("after", "jobs.storage:create", LOCK)),
    Case(
        "taking over the lock of one that was killed",
        (Order("after", "jobs.storage:create", LOCK), Order("after", "jobs.storage:create", r"lock\.json\.\w+$")),
    ),
    _one("freezing", Order("before", "manifests.freeze:_write_parts")),
    _one("the frozen manifest is uploaded", Order("before", PUT, PART)),
    _one("the frozen manifest is there, run.json is not", Order("after", UPLOAD, PART)),
    _one("run.json is being written for the first time", Order("before", PUT, RUN)),
    _one("run.json is there", Order("after", SAVE)),
    _one("run.json is being written again", Order("before", PUT, RUN, nth=2)),
]

# A worker does something, and the driver dies.
WORKING = [
    _one("driver while loading", Order("before", LOAD, victim="driver")),
    _one("driver while decoding", Order("before", DECODE, nth=7, victim="driver")),
    _one("driver while routing", Order("before", ROUTE, nth=2, victim="driver")),
    _one("driver while scoring", Order("before", SCORE, nth=3, victim="driver")),
    _one("driver when scores are there", Order("after", SCORE, nth=5, victim="driver")),
    _one("driver before a shard is rendered", Order("before", WRITER, nth=2, victim="driver")),
    _one("driver between heatmap and overlay", Order("after", WRITE, PICTURE, nth=2, victim="driver")),
    _one("driver while a shard is being written", Order("before", PUT, SHARD, nth=2, victim="driver")),
    _one("driver when a shard was written", Order("after", PUT, SHARD, nth=2, victim="driver")),
]

# Nothing but the driver is left.
SHARDS_WRITTEN = Order("before", COMMIT)
ENDING = [
    Case("between the last shard and the commit", (SHARDS_WRITTEN,), prepared=True),
    Case("while the table is made", (Order("before", COUNTS),), prepared=True),
    Case("while the table is being published", (Order("before", PUT, TABLE),), prepared=True),
    Case("the table was published", (Order("after", PUT, TABLE),), published=True, prepared=True),
    Case("the report is being written", (Order("before", PUT, REPORT),), published=True, prepared=True),
    Case("the last run.json is being written", (Order("before", PUT, RUN, nth=2),), published=True, prepared=True),
    Case("run.json says committed", (Order("after", SAVE, nth=2),), published=True, prepared=True),
    Case("_SUCCESS is being written", (Order("before", PUT, "_SUCCESS$"),), published=True, prepared=True),
    Case("_SUCCESS was written", (Order("after", WRITE, "_SUCCESS$"),), published=True, prepared=True),
    Case("before the lock is released", (Order("before", "jobs.storage:delete", LOCK),), published=True, prepared=True),
    Case("after the lock is released", (Order("after", "jobs.storage:delete", LOCK),), published=True, prepared=True),
]

# A worker or an actor dies, and the same start goes on.
SURVIVED = [
    _one("loading worker before a shard", Order("before", LOAD)),
    _one("loading worker in a shard", Order("before", DECODE, nth=6)),
    _one("extracting actor before a shard", Order("before", EXTRACT, nth=2)),
    _one("extracting actor while routing", Order("before", ROUTE, nth=3)),
    _one("scorer before it scores", Order("before", SCORE, nth=2)),
    _one("scorer when it has scored", Order("after", SCORE, nth=4)),
    _one("writing worker before a shard", Order("before", WRITER)),
    _one("writing worker between heatmap and overlay", Order("after", WRITE, PICTURE, nth=2)),
    _one("writing worker while a shard is being written", Order("before", PUT, SHARD, nth=2)),
    _one("writing worker when its shard was written", Order("after", PUT, SHARD, nth=2)),
]

# The actor that knows the scorers dies: the start ends with exit code 1, and a rerun goes on.
BEREFT = _one("registry", Order("before", f"{REGISTRY}.owner"))

# The raylet of a second node dies, or all of the node.
NODE = "second"
NODES = [
    _one("node while it loads", Order("before", LOAD, victim="raylet", node=NODE)),
    _one("node while it extracts", Order("before", ROUTE, nth=2, victim="raylet", node=NODE)),
    _one("node while it writes a shard", Order("before", PUT, SHARD, victim="node", node=NODE)),
    _one("node when its shard was written", Order("after", PUT, SHARD, victim="node", node=NODE)),
]

# The driver of retry-failed dies; what it retries is committed before. published: the new version is there then.
VERSION = r"versions/0001\.parquet$"
RETRYING = [
    _one("retry: its rows are being frozen", Order("before", "manifests.freeze:_write_parts")),
    _one("retry: its rows are there, retry.json is not", Order("after", UPLOAD, PART)),
    _one("retry: retry.json is being written", Order("before", PUT, r"retry\.json$")),
    _one("retry: retry.json is there", Order("after", WRITE, r"retry\.json$")),
    _one("retry: driver while scoring", Order("before", SCORE, victim="driver")),
    _one("retry: driver while a shard is being written", Order("before", PUT, SHARD, victim="driver")),
    _one("retry: driver when a shard was written", Order("after", PUT, SHARD, victim="driver")),
    _one("retry: run.json is being written that it is begun", Order("before", PUT, RUN)),
    _one("retry: run.json tells that it is begun", Order("after", SAVE)),
    _one("retry: the earlier version is being kept", Order("before", PUT, VERSION)),
    _one("retry: the earlier version was kept", Order("after", PUT, VERSION)),
    _one("retry: while the table is made", Order("before", COUNTS)),
    _one("retry: while the table is being published", Order("before", PUT, TABLE)),
    _one("retry: the table was published", Order("after", PUT, TABLE), published=True),
    _one("retry: the report is being written", Order("before", PUT, REPORT), published=True),
    _one("retry: run.json is being written", Order("before", PUT, RUN, nth=2), published=True),
    _one("retry: run.json tells of it", Order("after", SAVE, nth=2), published=True),
    _one("retry: before the lock is released", Order("before", "jobs.storage:delete", LOCK), published=True),
]

# The driver of rethreshold dies; the run that it decides again is committed before. It does all its work itself.
REDECIDING = [
    _one("rethreshold: run.json is being written that it is begun", Order("before", PUT, RUN)),
    _one("rethreshold: run.json tells that it is begun", Order("after", SAVE)),
    _one("rethreshold: the earlier version is being kept", Order("before", PUT, VERSION)),
    _one("rethreshold: the earlier version was kept", Order("after", PUT, VERSION)),
    _one("rethreshold: before a shard is decided again", Order("before", REDECIDE, nth=3)),
    _one("rethreshold: between heatmap and overlay", Order("after", WRITE, PICTURE, nth=2)),
    _one("rethreshold: while the table is made", Order("before", COUNTS)),
    _one("rethreshold: while the table is being published", Order("before", PUT, TABLE)),
    _one("rethreshold: the table was published", Order("after", PUT, TABLE), published=True),
    _one("rethreshold: the report is being written", Order("before", PUT, REPORT), published=True),
    _one("rethreshold: run.json is being written", Order("before", PUT, RUN, nth=2), published=True),
    _one("rethreshold: run.json tells of it", Order("after", SAVE, nth=2), published=True),
    _one("rethreshold: before the lock is released", Order("before", "jobs.storage:delete", LOCK), published=True),
]
