"""Metrics of an output's nights, for as long as the process lives: the metrics of a run end with it.

A thread reads the output once a minute, and a scrape gives what it found last. Storage that does not answer makes that
older, which is told, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.registry import Collector

from jobs.monitoring.catalogue import RESULTS, Exposition, Family
from jobs.monitoring.deadline import Deadline
from jobs.monitoring.night_metrics import add_nights
from jobs.monitoring.nights import Nights, Reader, Reading
from jobs.terminal import note
from manifests.secrets import redacted

READ_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """What a site wants of its nights. max_cost: of a run, in the currency of its price; None for any."""

    deadline: Deadline
    max_cost: float | None = None


class Exporter(Collector):
    """Serves what a reader finds."""

    def __init__(self, reader: Reader, site: Site):
        self._reader, self._site = reader, site
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._reading: Reading | None = None
        self._started, self._read_at = time.time(), 0.0
        self._took = 0.0
        self._reads = self._errors = 0
        self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)

    def __enter__(self) -> Exporter:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Read no more. A reading that hangs is not waited for."""
        self._stop.set()

    def read(self) -> None:
        """Read the output now; what goes wrong is counted and told, and what was known stays."""
        began = time.monotonic()
        try:
            reading = self._sound(self._reader.read())
        except Exception as error:  # whatever the storage or a strange file brings: this process goes on
            with self._lock:
                self._reads, self._errors = self._reads + 1, self._errors + 1
            note(redacted(f"the output could not be read: {type(error).__name__}: {error}"))
            return
        with self._lock:
            self._reads += 1
            self._reading, self._read_at, self._took = reading, time.time(), time.monotonic() - began

    def _sound(self, reading: Reading) -> Reading:
        """Without the nights that no metrics can be made of, as those of a very old version: in their place is what
        was known of that name before."""
        before = self._reading.nights if self._reading else {}
        nights, unreadable = dict(reading.nights), reading.unreadable
        for name, found in reading.nights.items():
            try:
                add_nights(Exposition(RESULTS), name, found, 0.0)
            except (KeyError, TypeError, ValueError):
                unreadable += 1
                nights[name] = before.get(name, Nights())
        return Reading(nights, unreadable)

    def collect(self) -> Iterable[Family]:
        """What a scrape gets."""
        found, now = Exposition(RESULTS), time.time()
        with self._lock:
            reading, read_at, took = self._reading, self._read_at, self._took
            reads, errors = self._reads, self._errors
        if reading is not None:
            for name, nights in sorted(reading.nights.items()):
                add_nights(found, name, nights, now)
            found.add("line_audit_exporter_read_seconds", took)
            found.add("line_audit_exporter_unreadable_runs", reading.unreadable)
        night, deadline = self._site.deadline.passed(now)
        found.add("line_audit_deadline_timestamp_seconds", deadline)
        found.add("line_audit_night_timestamp_seconds", night)
        found.add("line_audit_max_cost", self._site.max_cost)
        found.add("line_audit_exporter_reads_total", reads)
        found.add("line_audit_exporter_errors_total", errors)
        found.add("line_audit_exporter_staleness_seconds", now - (read_at or self._started))
        return found.families()

    def _run(self) -> None:
        self.read()
        while not self._stop.wait(READ_SECONDS):
            self.read()
