"""A run of the audit that is killed, goes on, and must end as if nothing had been."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from s3fs import S3FileSystem

from jobs.demo.server import s3_server
from jobs.listing import listing
from jobs.storage import delete, read_bytes, upload, write_bytes
from jobs.uris import join
from tests.bundles import write_random_bundle
from tests.faults.cluster import ROOT, Cluster, running_cluster
from tests.faults.points import Order, Storage
from tests.faults.reader import Reader, Rows
from tests.jobs.audit.conftest import write_archive
from tests.jobs.audit.tables import stable

PATIENCE_SECONDS = 240.0
DATE = "2026-01-02"
KILLED = -9
STORAGES: tuple[Storage, ...] = ("local", "s3")
OPTIONS = ("--shard-rows", "3", "--max-failed", "7", "--heatmaps", "all")


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run gives: rows, every file of its output, and the sizes of its pictures."""

    rows: Rows
    files: list[str]
    pictures: dict[str, int]


@dataclass
class Ground:
    """An archive with its bundle on one storage. options: of the command, besides manifest, bundle, output and date."""

    cluster: Cluster
    storage: Storage
    manifest: str
    bundle: str
    root: str
    options: Sequence[str]
    _reference: list[Reference] = field(default_factory=list)

    def night(self, name: str = "") -> Night:
        """A run that has not begun. name: of its output; one of its own if not given."""
        return Night(self, join(self.root, name or uuid.uuid4().hex[:8]))

    @property
    def reference(self) -> Reference:
        """Of an undisturbed run, which takes place when it is first asked for."""
        if not self._reference:
            self.measure(self.night("undisturbed"))
        return self._reference[0]

    def measure(self, night: Night) -> None:
        """Let it take place undisturbed, and make it the reference."""
        code, said = night.wait(night.start())
        assert code == 0, said
        self._reference[:] = [Reference(night.rows(), night.files(), night.pictures())]


@contextmanager
def ground_on_disk(root: Path) -> Iterator[Ground]:
    """The small archive of the audit's tests with a random bundle, on this machine's disk, and a Ray for its runs."""
    write_archive(root / "archive")
    bundle = write_random_bundle(root / "bundle", threshold=0.7)
    with running_cluster() as cluster:
        yield Ground(cluster, "local", str(root / "archive" / "manifest.csv"), str(bundle), str(root), OPTIONS)


@contextmanager
def both_grounds(root: Path) -> Iterator[dict[Storage, Ground]]:
    """The same archive and bundle on a disk and on S3, and one Ray for both."""
    write_archive(root / "archive")
    write_random_bundle(root / "bundle", threshold=0.7)
    S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
    with s3_server("line"):
        for entry in listing(str(root)):
            upload(Path(entry.uri), f"s3://line/{entry.relative_path}")
        with running_cluster() as cluster:
            yield {
                storage: Ground(cluster, storage, f"{top}/archive/manifest.csv", f"{top}/bundle", f"{top}/out", OPTIONS)
                for storage, top in zip(STORAGES, (str(root), "s3://line"), strict=True)
            }
    S3FileSystem.clear_instance_cache()


@dataclass
class Night:
    """One run. Its command is always the same."""

    ground: Ground
    output: str

    @property
    def command(self) -> list[str]:
        """What follows ``line-audit``."""
        ground = self.ground
        places = ("--manifest", ground.manifest, "--bundle", ground.bundle, "--output", self.output)
        return ["audit", *places, "--run-date", DATE, *ground.options]

    def start(self) -> subprocess.Popen[str]:
        """The command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *self.command],
            cwd=ROOT,
            env=self.ground.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Its exit code, and what it said."""
        try:
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(f"no end after {PATIENCE_SECONDS} s:\n{said}") from None
        return process.returncode, said

    def struck(self, *orders: Order) -> tuple[int, str]:
        """A start in which all these kills happen: its exit code, and what it said."""
        process = self.start()
        with given(self.ground, process.pid, orders) as left:
            code, said = self.wait(process)
            assert left() == [], f"exit code {code}, but these points were not reached: {left()}\n{said}"
        return code, said

    def rows(self) -> Rows:
        """Of the published table, without what a disturbed run may differ in."""
        return stable(
            pq.read_table(io.BytesIO(read_bytes(join(self.output, "results", f"run_date={DATE}", "audit.parquet"))))
        )

    def files(self) -> list[str]:
        """Every file below the output, hidden ones too."""
        return [entry.relative_path for entry in listing(self.output)]

    def pictures(self) -> dict[str, int]:
        """Sizes of the heatmaps and overlays by name."""
        return {e.relative_path: e.size or 0 for e in listing(join(self.output, "heatmaps"))}

    def record(self) -> dict[str, Any]:
        """run.json."""
        found = json.loads(read_bytes(join(self.output, "runs", DATE, "audit", "run.json")))
        assert isinstance(found, dict)
        return found

    def snapshot(self) -> dict[str, bytes]:
        """The contents of all files."""
        return {entry.relative_path: read_bytes(entry.uri) for entry in listing(self.output)}

    def restore(self, contents: dict[str, bytes]) -> None:
        """Make the output what it was."""
        for name in self.files():
            delete(join(self.output, name))
        for name, data in contents.items():
            write_bytes(join(self.output, name), data)

    def check(self, reader: Reader) -> None:
        """The run is committed; everything is there once and as in the undisturbed run, and nothing else is."""
        reference = self.ground.reference
        assert self.rows() == reference.rows
        assert self.files() == reference.files
        assert self.pictures() == reference.pictures
        for name in self.pictures():
            Image.open(io.BytesIO(read_bytes(join(self.output, "heatmaps", name)))).verify()
        assert (self.record()["state"], self.record()["exit_code"]) == ("committed", 0)
        assert reader.look() == 1
        assert reader.wrong == []
        assert reader.looks > 3


class Retry(Night):
    """``retry-failed`` of a run. The reference of its ground is what an undisturbed one makes."""

    @property
    def command(self) -> list[str]:
        """What follows ``line-audit``."""
        return ["retry-failed", "--run", join(self.output, "runs", DATE, "audit"), "--max-failed", "7"]


class Rethreshold(Night):
    """``rethreshold`` of a run. The reference of its ground is what an undisturbed one makes."""

    @property
    def command(self) -> list[str]:
        """What follows ``line-audit``."""
        run = join(self.output, "runs", DATE, "audit")
        return ["rethreshold", "--run", run, "--threshold", join(self.ground.root, "thresholds.json")]


@contextmanager
def given(ground: Ground, pid: int, orders: Sequence[Order]) -> Iterator[Any]:
    """Orders to the killer, of a start with this process id; yields a function that tells which are still open."""
    files: dict[Path, Order] = {}
    for order in orders:
        path = ground.cluster.orders / f"{uuid.uuid4().hex}.json"
        path.with_suffix(".new").write_text(json.dumps({**order.on(ground.storage), "pid": pid}))
        path.with_suffix(".new").rename(path)
        files[path] = order
    try:
        yield lambda: [order for path, order in files.items() if path.exists()]
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def settle(seconds: float = 0.5) -> None:
    """Time in which workers of a driver that was killed may still write what they have."""
    time.sleep(seconds)
