"""The views over committed runs, as SQL: for a session of ours, and as a file for DuckDB's own command line."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.uris import is_local, is_s3, path_of

VIEWS = {
    "results": "every published row, with run_date and run_name",
    "runs": "one row for each run: counts, rates, seconds, cost, exit code",
    "failures": "the rows that failed, with the reason",
    "worst_by_line": "the 100 highest margins of each line and run",
    "nightly_rates": "anomalous, review and failed rates by run, line, camera and category",
    "review_queue": "the review queue of each run, with the verdicts that came back",
    "heatmaps": "the rows with pictures, worst first",
}
# The date as a partition, so that a question about one night opens the tables of that night only.
_PARTITIONED = "hive_partitioning = true, hive_types = {'run_date': DATE}"
_FROM_PATH = "CAST(string_split(line_audit_file, '/')[-2][10:] AS DATE)"


def session_views() -> str:
    """The views of a session that knows all columns, in its variable ``audit_schema``: no table is opened for them."""
    reading = f"schema = getvariable('audit_schema'), {_PARTITIONED}"
    return _template("views.sql").render(reading=reading, run_date="run_date")


def script(output: str) -> str:
    """A file for DuckDB's own command line, which finds the committed runs whenever it is read.

    Raises AuditError for a storage that DuckDB has no extension for.
    """
    if not is_local(output) and not is_s3(output):
        raise AuditError(exits.USAGE, f"{output}: --write-views is for a local folder or s3://")
    root = path_of(output) if is_local(output) else f"s3://{path_of(output)}"
    # A folder such as plant=7 above the results would be taken for a partition too.
    nested = any("=" in part for part in root.split("/"))
    reading = f"union_by_name = true, {'hive_partitioning = false' if nested else _PARTITIONED}"
    found = _template("discovery.sql").render(
        remote=not is_local(output),
        bucket=quoted("/".join(root.split("/")[:3])),
        output=quoted(root),
        pattern=quoted(literal_pattern(root)),
    )
    views = _template("views.sql").render(reading=reading, run_date=_FROM_PATH if nested else "run_date")
    return found + views + _template("reviews.sql").render()


def quoted(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def literal_pattern(path: str) -> str:
    """The pattern that matches this path and no other."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


def _template(name: str) -> Template:
    # SQL, not HTML: what goes in is a literal already.
    return Environment(
        loader=PackageLoader("jobs.query", "."),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)
