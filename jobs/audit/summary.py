"""What a person reads at the end: counts, rate, where the results are, how to query them."""

from __future__ import annotations

import shlex
from typing import Any

from rich.table import Table

from jobs.audit.config import AuditConfig
from jobs.audit.record import RunFolder
from jobs.audit.run import Outcome, Preview
from jobs.manifest.left_out import told
from jobs.terminal import output as console
from jobs.terminal import say
from jobs.uris import join
from manifests.schema import printable


def print_summary(config: AuditConfig, outcome: Outcome) -> None:
    """The summary of a finished audit, on the terminal."""
    record, counts = outcome.record, outcome.record.counts
    categories = Table(title=f"run {record.run_id}", title_justify="left")
    for heading in ("category", "scored", "anomalous", "review"):
        categories.add_column(heading, justify="left" if heading == "category" else "right")
    names = sorted({*counts["scored_by_category"], *counts["review_by_category"]})
    for name in names:
        categories.add_row(
            printable(name) or "of no category",
            *(
                str(counts[key].get(name, 0))
                for key in ("scored_by_category", "anomalous_by_category", "review_by_category")
            ),
        )
    console.print(categories)
    if counts["failed_by_code"]:
        failures = Table(title="failed rows", title_justify="left")
        failures.add_column("stage/code")
        failures.add_column("rows", justify="right")
        for code, number in counts["failed_by_code"].items():
            failures.add_row(code, str(number))
        console.print(failures)
    failed = counts["status"].get("failed", 0)
    say(f"{counts['rows']:,} images: {counts['status'].get('scored', 0):,} scored, {failed:,} failed")
    if unknown := counts["status"].get("scored", 0) - sum(counts["scored_by_category"].values()):
        say(f"{unknown:,} of them show no product that the bundle knows: to review, without a score, not in the queue")
    if left_out := told(record.frozen.get("left_out", {})):
        say(f"left out of the manifest: {left_out}")
    for warning in record.warnings:
        say(f"warning: {warning}")
    if counts["render_errors"]:
        say(f"{counts['render_errors']} pictures could not be made; see column render_error")
    if outcome.scored_shards and record.timings.get("images_per_second"):
        for line in _pace(record.timings):
            say(line)
    if outcome.scored_shards and record.self_test:
        say(_self_test(record.self_test))
    if outcome.scored_shards and outcome.earlier_shards:
        say(f"{outcome.earlier_shards} shards were there from an earlier start and were not scored again")
    say(f"results:  {record.results}")
    if config.heatmaps != "none":
        say(f"heatmaps: {join(config.output, 'heatmaps')}")
    _to_look_at(join(config.output, "runs", record.run_id), outcome)
    say(f"to query: {query_line(config.output)}")
    say(f"exit status {outcome.code}: {record.exit_reason}")


def _to_look_at(run: str, outcome: Outcome) -> None:
    if outcome.report:
        say(f"report:   {outcome.report}")
    say(f"to review: {RunFolder.at(run).queue(outcome.record.version)}")


def print_retry(run: str, outcome: Outcome) -> None:
    """What a retry made of the failed rows of a run, on the terminal."""
    record = outcome.record
    if not outcome.scored_shards + outcome.earlier_shards:
        say(f"exit status {outcome.code}: {record.exit_reason}")
        return
    last = record.retries[-1]
    say(f"run {record.run_id}: {last['rows']:,} rows tried again, {last['recovered']:,} scored")
    say(f"{record.counts['rows']:,} images: {record.counts['status'].get('failed', 0):,} failed still")
    say(f"results:  {RunFolder.at(run).results}; earlier versions: runs/{record.run_id}/versions/")
    _to_look_at(run, outcome)
    say(f"exit status {outcome.code}: {record.exit_reason}")


def print_rethreshold(run: str, outcome: Outcome) -> None:
    """What other thresholds made of the decisions of a run, on the terminal."""
    record = outcome.record
    if not outcome.scored_shards:
        say("these are the thresholds that the run is decided with; nothing to do")
        say(f"exit status {outcome.code}: {record.exit_reason}")
        return
    last = record.rethresholds[-1]
    table = Table(title=f"run {record.run_id}, version {last['version']}: {last['rule']}", title_justify="left")
    for heading in ("category", "threshold", "promised", "scored", "anomalous", "review"):
        table.add_column(heading, justify="left" if heading == "category" else "right")
    for category, threshold in last["thresholds"].items():
        promised = last["promised_false_rejects"][category]
        counted = ("scored_by_category", "anomalous_by_category", "review_by_category")
        table.add_row(
            category,
            f"{threshold:.4g}",
            "-" if promised is None else f"{100 * promised:.2g} %",
            *(str(record.counts[key].get(category, 0)) for key in counted),
        )
    console.print(table)
    before, after = last["decisions_before"], record.counts["decisions"]
    changes = ", ".join(f"{n} {before.get(n, 0):,} -> {after.get(n, 0):,}" for n in sorted({*before, *after}))
    say(f"decisions: {changes}")
    say(f"results:  {RunFolder.at(run).results}; earlier versions: runs/{record.run_id}/versions/")
    _to_look_at(run, outcome)
    say(f"exit status {outcome.code}: {record.exit_reason}")


def _self_test(passed: dict[str, Any]) -> str:
    return (
        f"self-test passed: {passed['images']} reference images score as expected "
        f"(largest deviation {100 * passed['largest_deviation']:.2g} %)"
    )


def query_line(output: str) -> str:
    """The command that counts the images of an output by night, category and decision, to be pasted into a shell."""
    sql = "SELECT run_date, category, decision, count(*) AS images FROM results GROUP BY ALL ORDER BY ALL"
    return shlex.join(["line-audit", "sql", "--output", output, "--execute", sql])


def print_plan(config: AuditConfig, preview: Preview) -> None:
    """What an audit would do, how long it would take and what it would cost."""
    frozen, bundle = preview.frozen, preview.bundle
    table = Table(title="dry run: nothing was written", title_justify="left", show_header=False)
    for key, value in (
        ("run", preview.folder.run_id),
        ("manifest", ", ".join(config.manifests)),
        ("rows", f"{frozen.rows:,}" + (f", {preview.to_do:,} to do" if preview.to_do < frozen.rows else "")),
        ("rows with problems", ", ".join(f"{n} {code}" for code, n in sorted(frozen.problems.items())) or "none"),
        ("left out", told(frozen.left_out) or "nothing"),
        ("shards", f"{len(frozen.shards):,}"),
        ("bundle", f"{config.bundle} ({bundle.digest[:12]})"),
        ("categories", ", ".join(bundle.categories)),
        ("decision rule", "the reference's" if bundle.reference else "line-audit's"),
        ("precision", f"{preview.precision} on {preview.device}"),
        ("self-test", f"{len(bundle.references) or 'no'} reference images"),
        ("results", preview.folder.results),
        *_expected(config, preview),
        *(("warning", one) for one in preview.warnings),
    ):
        table.add_row(key, value)
    console.print(table)


def _expected(config: AuditConfig, preview: Preview) -> list[tuple[str, str]]:
    expected, rows = preview.expected, preview.to_do
    if rows == 0:
        return [("expected", "nothing is to do")]
    if expected is None:
        said = "unknown: no image of the sample could be read"
        return [("expected", said), ("error budget", f"{config.max_failed} would be exceeded")]
    told = [
        (
            "sample",
            f"{expected.sampled} images: {1000 * expected.load_seconds:.1f} ms to load one, "
            f"{1000 * expected.model_seconds:.1f} ms for the models"
            + (f"; {expected.unread} unread, such as {expected.reason}" if expected.unread else ""),
        ),
        ("to read", f"{_size(expected.bytes_per_image * rows)} ({_size(expected.bytes_per_image)} an image)"),
        (
            "expected",
            f"{_duration(expected.duration_seconds)} at {expected.images_per_second:.1f} images/s on "
            f"{expected.nodes} node{'s' if expected.nodes > 1 else ''} with {expected.cpus} CPUs",
        ),
    ]
    budgeted = preview.frozen.budgeted
    bad = sum(preview.frozen.problems.values()) - (preview.frozen.rows - budgeted)  # without the duplicates
    failing = bad + round((budgeted - bad) * expected.unread / expected.sampled)
    if config.max_failed.exceeded(failing, budgeted):
        told.append(("error budget", f"{config.max_failed} would be exceeded: about {failing:,} rows would fail"))
    if config.price_per_node_hour is None:
        return [*told, ("cost", "unknown: give the price of a node for an hour with --price")]
    costs = expected.cost(config.price_per_node_hour, rows)
    return [*told, ("cost", _cost(costs))]


def _cost(costs: dict[str, float | None]) -> str:
    return (
        f"{costs['total']:.4g}, that is {costs['per_1000_images']:.4g} per 1,000 images, at "
        f"{costs['price_per_node_hour']:g} per node and hour"
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _pace(timings: dict[str, Any]) -> list[str]:
    """How fast a run was, what set the pace, and what to change."""
    told = [
        f"{timings['images_per_second']} images/s over {timings['rows_scored_now']:,} images with start-up, "
        f"{timings['seconds']} s in all"
    ]
    if "images_per_second_steady" in timings:
        told[0] += (
            f", of which {timings['start_up_seconds']:.0f} s of start-up; "
            f"{timings['images_per_second_steady']} images/s once the models were ready"
        )
    if "stages" in timings:
        spent = [f"{stage} {one['seconds']:.0f}" for stage, one in timings["stages"].items()]
        told.append(f"seconds by stage, summed over processes: {', '.join(spent)}")
    if "limiting" in timings:
        limit = timings["limiting"]
        told.append(f"limiting stage: {limit['limiting']} ({limit['why']}); faster with {limit['next']}")
    if "node_seconds" in timings:
        costs = timings.get("cost")
        told.append(
            f"{timings['node_seconds']:.0f} node-seconds (nodes times seconds)"
            + (f"; cost {_cost(costs)}" if costs else "; --price tells the cost")
        )
    return told
