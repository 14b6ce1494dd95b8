"""Stage 1, on CPUs: the rows of a shard, their bytes, and the 224 x 224 picture of each."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NoReturn

import pyarrow as pa
import ray

from anomaly_core.preprocess import Decoded, ImageError, Limits, Preprocessing, decode
from jobs.access import AllowList
from jobs.audit.breaker import Breaker
from jobs.audit.child import DecodingChild
from jobs.audit.fetch import FetchError, fetch
from jobs.audit.figures import Meter
from jobs.audit.orphans import end_with_parent
from jobs.audit.proofs import Image, some_images
from jobs.audit.stall import Steps
from jobs.audit.turns import turn
from jobs.monitoring.logs import LogSettings, about_shard, announce, log_as
from jobs.storage import reading
from jobs.uris import join
from manifests.freeze import read_shard

_log = logging.getLogger(__name__)
# Images that are decoded in one turn: about as long as the other stages' turns.
DECODED_AT_ONCE = 3
# Of other parts, whose images may show that a storage is open to us.
SHARDS_ELSEWHERE = 64

LOADED = (
    pa.field("sha256", pa.string()),
    pa.field("error_stage", pa.string()),
    pa.field("error_code", pa.string()),
    pa.field("error_message", pa.string()),
    pa.field("attempts", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("pixels", pa.large_binary()),
)


@dataclass(frozen=True)
class LoadSettings:
    """What the load stage needs to know of the run. others: URIs of parts whose images serve as proof."""

    manifest_uri: str
    allowed: AllowList
    limits: Limits
    preprocessing: Preprocessing
    threads: int
    decode_timeout: float
    others: tuple[str, ...] = ()
    log: LogSettings | None = None


class Load:
    """A shard descriptor (shard, part, row_group, rows) to its rows with pixels, or with the reason of failure.

    On a second attempt at the same shard, whose first killed or hung its worker, or made a decoder fail, every image is
    decoded in a child process that can be killed: the image that did it costs its row, and the others are scored.
    """

    def __init__(self, settings: LoadSettings, registry: Any):
        self.settings, self.registry = settings, registry
        # Many fetches wait side by side, but one thread decodes: this task's share of the CPUs is not more, and more
        # would take them from the models.
        self.decoding_since: float | None = None

    def __call__(self, descriptor: pa.Table) -> pa.Table:
        """One descriptor row in, one table of the shard out. Raises StorageAccessError if storage refuses us."""
        (shard,) = descriptor.to_pylist()
        self.shard = int(shard["shard"])
        log_as(self.settings.log, self.shard)
        meter = Meter()
        attempt = ray.get(self.registry.begin.remote(self.shard))
        if attempt > 1:
            _log.warning("shard is tried again, its images one by one in a child process", extra={"attempt": attempt})
        part = join(self.settings.manifest_uri, shard["part"])
        with reading(part) as file:
            rows = read_shard(file, shard["row_group"])
        if len(rows) != shard["rows"]:
            raise RuntimeError(
                f"shard {shard['shard']}: {len(rows)} rows in the frozen manifest, {shard['rows']} planned"
            )
        # Not the further columns: they are carried as they are, and a strange value in them is nobody's business here.
        wanted = rows.select(["uri", "version_id", "etag", "problem_code", "problem_message"]).to_pylist()
        breaker = Breaker(self.settings.allowed, self.registry, partial(self._elsewhere, part))
        loaded: list[dict[str, Any]] = []
        step = Steps(self.registry)

        def waiting() -> None:
            breaker.waits(lambda: [_image(row) for row in wanted[len(loaded) :] if row["problem_code"] is None])

        for row, result in zip(wanted, self._images(wanted, attempt > 1, waiting), strict=True):
            if row["problem_code"] is None:
                failed = result if result["error_stage"] == "fetch" else {}
                breaker.saw(_image(row), failed.get("error_code"), failed.get("error_message"))
            loaded.append(result)
            step()
        breaker.end()
        table = pa.Table.from_pylist(loaded, schema=pa.schema(LOADED))
        for field in LOADED:
            rows = rows.append_column(field, table[field.name])
        spent = meter.read(len(rows))
        self.registry.spent.remote("load", spent, self.shard)
        lost = sum(result["error_stage"] is not None for result in loaded)
        told = {"rows": len(rows), "failed": lost, "seconds": spent.wall, "attempt": attempt}
        _log.info("shard loaded", extra=told)
        return rows

    def _elsewhere(self, part: str) -> Iterator[Image]:
        """Images of the other shards, some of every part."""
        others = [other for other in self.settings.others if other != part]
        yield from some_images([part])
        yield from some_images(others, max(1, SHARDS_ELSEWHERE // max(1, len(others))))

    def _images(
        self, rows: list[dict[str, Any]], careful: bool, waiting: Callable[[], None]
    ) -> Iterator[dict[str, Any]]:
        child = DecodingChild(self._decoder()) if careful else None
        threads = partial(ThreadPoolExecutor, initializer=about_shard, initargs=(self.shard,))
        pool, decoder = threads(self.settings.threads), threads(1)
        fetched = _ahead(pool, self._bytes, rows, self.settings.threads)
        try:
            results: Iterator[dict[str, Any]]
            if child is not None:
                results = (self._decode(_result(f, waiting), child) for f in fetched)
            else:
                lots = _ahead(decoder, self._decode_in_turn, in_lots(fetched, DECODED_AT_ONCE), 1)
                results = self._in_time(lots, waiting)
            yield from results
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            decoder.shutdown(wait=False, cancel_futures=True)
            if child is not None:
                child.close()

    def _decoder(self) -> Callable[[bytes], Decoded]:
        return partial(decode, limits=self.settings.limits, preprocessing=self.settings.preprocessing)

    def _decode_in_turn(self, fetched: Iterable[Any]) -> list[dict[str, Any]]:
        files = [future.result() for future in fetched]
        with turn():
            try:
                return [self._decode(file, None) for file in files]
            finally:
                self.decoding_since = None

    def _in_time(self, futures: Iterable[Any], waiting: Callable[[], None]) -> Iterator[dict[str, Any]]:
        # A decoder that hangs holds its thread for ever. This process is then given up, and Ray runs the shard again,
        # carefully.
        def look() -> None:
            since = self.decoding_since
            if since is not None and time.monotonic() - since > self.settings.decode_timeout:
                _give_up("an image hangs its decoder")
            waiting()

        for future in futures:
            yield from _result(future, look)

    def _bytes(self, row: dict[str, Any]) -> tuple[bytes | None, dict[str, Any]]:
        result = _blank()
        if row["problem_code"] is not None:
            _fail(result, "manifest", row["problem_code"], row["problem_message"])
            return None, result
        try:
            fetched = fetch(
                row["uri"], self.settings.allowed, self.settings.limits.max_bytes, row["version_id"], row["etag"]
            )
        except FetchError as error:
            result["attempts"] = error.attempts
            _fail(result, "fetch", error.code, error.message)
            return None, result
        result["attempts"] = fetched.attempts
        result["sha256"] = hashlib.sha256(fetched.data).hexdigest()
        return fetched.data, result

    def _decode(self, fetched: tuple[bytes | None, dict[str, Any]], child: DecodingChild | None) -> dict[str, Any]:
        data, result = fetched
        if data is None:
            return result
        try:
            image = self._decode_here(data) if child is None else child.decode(data, self.settings.decode_timeout)
        except ImageError as error:
            _fail(result, "decode", error.code, error.message)
        else:
            result.update(width=image.width, height=image.height, pixels=image.pixels.tobytes())
        return result

    def _decode_here(self, data: bytes) -> Decoded:
        self.decoding_since = time.monotonic()
        try:
            return self._decoder()(data)
        except ImageError:
            raise
        except Exception as error:  # raised on, it would end this run, and every start of it after this one
            _give_up(f"a decoder failed ({type(error).__name__}: {error})")


def _ahead(pool: ThreadPoolExecutor, function: Callable[..., Any], rows: Iterable[Any], count: int) -> Iterator[Any]:
    """The futures of function(row) in order, with so many begun ahead of the one that is asked for."""
    begun: deque[Any] = deque()
    for row in rows:
        begun.append(pool.submit(function, row))
        if len(begun) > count:
            yield begun.popleft()
    yield from begun


def _give_up(why: str) -> NoReturn:
    """End this process. Ray then runs its shard again, carefully."""
    announce(f"{why}; this worker ends, its shard is tried again", sys.stderr)
    os._exit(70)


def _result(future: Any, look: Callable[[], None]) -> Any:
    """What a future gives; look is called every second until it does."""
    while True:
        try:
            return future.result(timeout=1.0)
        except FutureTimeout:
            if future.done():  # meanwhile, or it raised one itself
                return future.result()
            look()


def in_lots(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while lot := list(islice(remaining, size)):
        yield lot


def _image(row: dict[str, Any]) -> Image:
    return row["uri"], row["version_id"]


def _blank() -> dict[str, Any]:
    return {field.name: 0 if field.name == "attempts" else None for field in LOADED}


def _fail(result: dict[str, Any], stage: str, code: str, message: str) -> None:
    result.update(error_stage=stage, error_code=code, error_message=message)


def load_shard(descriptor: pa.Table, settings: LoadSettings, registry: Any) -> pa.Table:
    """The load stage as a function, for Ray tasks."""
    end_with_parent()
    return Load(settings, registry)(descriptor)
