"""What a person reads at the end: counts, rate, where the results are, how to query them."""

from __future__ import annotations

from rich.table import Table

from anomaly_core.bundle import Bundle
from anomaly_core.device import Precision
from jobs.audit.config import AuditConfig
from jobs.audit.record import RunFolder
from jobs.audit.run import Outcome
from jobs.cli import output as console
from jobs.storage import is_local, join
from manifests.freeze import FrozenManifest


def print_summary(config: AuditConfig, outcome: Outcome) -> None:
    """The summary of a finished audit, on the terminal."""
    record, counts = outcome.record, outcome.record.counts
    categories = Table(title=f"run {record.run_id}", title_justify="left")
    for heading in ("category", "scored", "anomalous", "review"):
        categories.add_column(heading, justify="left" if heading == "category" else "right")
    names = sorted({*counts["scored_by_category"], *counts["review_by_category"]})
    for name in names:
        categories.add_row(
            name,
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
    say = lambda text: console.print(text, markup=False, soft_wrap=True)  # noqa: E731
    failed = counts["status"].get("failed", 0)
    say(f"{counts['rows']:,} images: {counts['status'].get('scored', 0):,} scored, {failed:,} failed")
    if counts["render_errors"]:
        say(f"{counts['render_errors']} pictures could not be made; see column render_error")
    if outcome.scored_shards and record.timings.get("images_per_second"):
        say(
            f"{record.timings['images_per_second']} images/s over {record.timings['rows_scored_now']:,} images "
            f"(with start-up), {record.timings['seconds']} s in all"
        )
    if outcome.scored_shards and outcome.earlier_shards:
        say(f"{outcome.earlier_shards} shards were there from an earlier start and were not scored again")
    say(f"results:  {record.results}")
    if config.heatmaps != "none":
        say(f"heatmaps: {join(config.output, 'heatmaps')}")
    say(f"in DuckDB: {query_line(config.output)}")
    say(f"exit status {outcome.code}: {record.exit_reason}")


def query_line(output: str) -> str:
    """The line that queries the results of an output in DuckDB."""
    sql = (
        "SELECT run_date, category, decision, count(*) AS images FROM "
        f"read_parquet('{join(output, 'results', '**', '*.parquet')}', hive_partitioning=true) "
        "GROUP BY ALL ORDER BY ALL"
    )
    prefix = "" if is_local(output) else "INSTALL httpfs; LOAD httpfs; "
    return f"{prefix}{sql};"


def print_plan(
    config: AuditConfig, frozen: FrozenManifest, bundle: Bundle, precision: Precision, folder: RunFolder
) -> None:
    """What an audit would do."""
    table = Table(title="dry run: nothing was written", title_justify="left", show_header=False)
    for key, value in (
        ("run", folder.run_id),
        ("manifest", config.manifest),
        ("rows", f"{frozen.rows:,}"),
        ("rows with problems", ", ".join(f"{n} {code}" for code, n in sorted(frozen.problems.items())) or "none"),
        ("shards", f"{len(frozen.shards):,}"),
        ("bundle", f"{config.bundle} ({bundle.digest[:12]})"),
        ("categories", ", ".join(bundle.categories)),
        ("decision rule", "the reference's" if bundle.reference else "line-audit's"),
        ("precision", precision),
        ("results", folder.results),
    ):
        table.add_row(key, value)
    console.print(table)
