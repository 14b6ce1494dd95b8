"""Every metric: its name, what it means and its labels, in one place. RUN: of ``audit`` and ``retry-failed`` while they
run. RESULTS: of ``exporter``, from what is in an output.

Labels have few values: categories are the bundle's, error codes a closed list, names those of runs; lines, which come
from manifests, are cut to the 200 that moved most. No image, no address and no secret is in any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Family = CounterMetricFamily | GaugeMetricFamily
DIGITS = 12  # of a SHA-256 in a label, as people are shown it


@dataclass(frozen=True)
class Metric:
    """A metric. name: as it is scraped, with the ending ``_total`` if it is a counter."""

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    labels: tuple[str, ...] = ()

    def family(self) -> Family:
        """An empty family of it."""
        of = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return of(self.name, self.meaning, labels=self.labels)


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, "counter", meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, "gauge", meaning, labels)


RUN = (
    _gauge(
        "line_audit_run_info",
        "1; what this process works on",
        "run_id",
        "command",
        "bundle_digest",
        "code_version",
        "precision",
        "device",
    ),
    _gauge("line_audit_run_phase", "1 for the phase it is in: starting, scoring, committing, ended", "phase"),
    _gauge("line_audit_run_start_timestamp_seconds", "when the command began"),
    _gauge("line_audit_run_exit_code", "exit code, once the command has ended (--metrics-linger)"),
    _gauge("line_audit_run_rows", "rows that are to be in the end: of the manifest, or those of a retry"),
    _gauge("line_audit_run_earlier_rows", "rows that earlier starts have written; counters do not have them"),
    _gauge("line_audit_run_max_failed_rows", "error budget in rows (--max-failed); of audit only"),
    _counter(
        "line_audit_images_total",
        "images of shards that this start has written; (none) is the category of those that no autoencoder scored",
        "status",
        "category",
        "decision",
    ),
    _counter("line_audit_failures_total", "failed rows of shards that this start has written", "stage", "code"),
    _gauge(
        "line_audit_shards",
        "shards by where they are: earlier (written by an earlier start), waiting, load, extract, write (in the stage "
        "or in the queue before it), written",
        "state",
    ),
    _counter("line_audit_shard_retries_total", "attempts at shards after the first one"),
    _counter("line_audit_stage_seconds_total", "seconds of work, summed over processes", "stage"),
    _counter("line_audit_stage_cpu_seconds_total", "CPU seconds, summed over processes", "stage"),
    _counter("line_audit_stage_waited_seconds_total", "seconds that a stage waited for the next one", "stage"),
    _counter("line_audit_stage_images_total", "images that went through a stage, in retries again", "stage"),
    _gauge("line_audit_last_movement_timestamp_seconds", "when a stage last moved, or a shard was written"),
    _gauge("line_audit_last_look_timestamp_seconds", "when figures of the stages and of the cluster were last taken"),
    _gauge("line_audit_object_store_capacity_bytes", "object store of all nodes"),
    _gauge("line_audit_object_store_used_bytes", "what is in use of it"),
    _gauge("line_audit_cluster_capacity", "of the Ray cluster: CPUs, GPUs", "resource"),
    _gauge("line_audit_cluster_free", "CPUs and GPUs that no task or actor holds", "resource"),
)
RESULTS = (
    _gauge(
        "line_audit_last_success_timestamp_seconds",
        "when the last run (by its date) was committed, within its error budget or not; 0 if there never was one",
        "name",
    ),
    _gauge("line_audit_last_success_age_seconds", "seconds since then", "name"),
    _gauge("line_audit_last_success_begin_timestamp_seconds", "when that run was begun; 0 if there is none", "name"),
    _gauge(
        "line_audit_last_run_info",
        "1; the last committed run",
        "name",
        "run_id",
        "bundle_digest",
        "precision",
        "device",
        "version",
    ),
    _gauge("line_audit_last_run_exit_code", "exit code of the last run that has ended, committed or not", "name"),
    _gauge("line_audit_last_run_rows", "rows; this and what follows is of the last committed run", "name"),
    _gauge("line_audit_last_run_decisions", "rows by decision", "name", "decision"),
    _gauge("line_audit_last_run_scored", "scored images by category", "name", "category"),
    _gauge("line_audit_last_run_anomalous", "anomalous images by category", "name", "category"),
    _gauge("line_audit_last_run_failures", "failed rows by code", "name", "stage", "code"),
    _gauge("line_audit_last_run_failed_ratio", "failed rows, without duplicates, as a share of all", "name"),
    _gauge(
        "line_audit_last_run_budget_used_ratio",
        "failed rows as a share of those that the error budget allows; above 1 it is exceeded. scope: all rows, or the "
        "worst category, where categories have budgets",
        "name",
        "scope",
    ),
    _gauge("line_audit_last_run_duration_seconds", "seconds from command to commit, of the last start", "name"),
    _gauge("line_audit_last_run_images_per_second", "images scored a second, of that start", "name"),
    _gauge("line_audit_last_run_node_seconds", "nodes times seconds, of that start", "name"),
    _gauge("line_audit_last_run_cost", "cost, in the currency of --price, of that start", "name"),
    _gauge("line_audit_last_run_stage_seconds", "seconds of work over all processes, of that start", "name", "stage"),
    _gauge("line_audit_last_run_report", "1 if the published version has a report, else 0", "name"),
    _gauge("line_audit_last_run_verdict", "verdict of the report: -1 unknown, 0 quiet, 1 watch, 2 alarm", "name"),
    _gauge(
        "line_audit_last_run_drift",
        "how scores have moved, the worse of both references: 0 none, 1 watch, 2 drift; line is (all) for all lines",
        "name",
        "category",
        "line",
    ),
    _gauge("line_audit_unfinished_run_state", "1; running, interrupted or failed", "name", "run_date", "state"),
    _gauge("line_audit_unfinished_run_age_seconds", "seconds since an unfinished run was begun", "name", "run_date"),
    _gauge("line_audit_unfinished_run_exit_code", "exit code of its last start, if that ended", "name", "run_date"),
    _gauge(
        "line_audit_unfinished_run_heartbeat_age_seconds",
        "seconds since the process that holds it was heard of; none if no process does",
        "name",
        "run_date",
    ),
    _gauge("line_audit_deadline_timestamp_seconds", "the last time of day by which a night must be done (--deadline)"),
    _gauge("line_audit_night_timestamp_seconds", "the one before: a run of the night in between began after it"),
    _gauge("line_audit_max_cost", "what a run may cost (--max-cost)"),
    _counter("line_audit_exporter_reads_total", "readings of the output that were tried"),
    _counter("line_audit_exporter_errors_total", "readings that failed; what was known before is served on"),
    _gauge("line_audit_exporter_staleness_seconds", "seconds since the output was last read"),
    _gauge("line_audit_exporter_read_seconds", "how long that took"),
    _gauge("line_audit_exporter_unreadable_runs", "runs whose record could not be read then"),
)


class Exposition:
    """The families of one scrape, filled by name."""

    def __init__(self, metrics: tuple[Metric, ...]):
        self._metrics = {metric.name: metric for metric in metrics}
        self._families: dict[str, Family] = {}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """A sample; nothing if there is no value. labels: values, in the order of the catalogue."""
        metric = self._metrics[name]
        if len(labels) != len(metric.labels):
            raise ValueError(f"{name} has labels {metric.labels}, not {labels}")
        if value is not None:
            family = self._families.setdefault(name, metric.family())
            family.add_metric(labels, float(value))

    def families(self) -> list[Family]:
        """Those that have samples, in the order of the catalogue."""
        return [self._families[name] for name in self._metrics if name in self._families]
