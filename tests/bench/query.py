"""Questions to a million rows: ``python -m tests.bench.query [--rows N] [--nights N] [--output URI]``.

Draws the nights, in a new folder unless an output is given, and prints for each view and for each recipe of
jobs/query/README.md the seconds, and the bytes and requests that were read of the tables. Each has a session of its
own, so that nothing is at hand from the one before; what opening it takes is told first. ``--row-groups`` prints
instead what one line of one night reads of tables with row groups of other sizes and in another order.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.audit.record import RunFolder
from jobs.query.session import open_session
from jobs.query.views import VIEWS
from jobs.range_files import RangeFiles
from tests.nights import Night, night_table, write_night

README = Path(__file__).parents[2] / "jobs" / "query" / "README.md"
LAST = date(2026, 3, 14)  # the night that the recipes ask for
SIZES = (8_192, 16_384, 32_768, 50_000)
ORDERS = (("line", "category"), ("category", "line"))
ONE_LINE = {
    "decisions": "SELECT decision, count(*), avg(margin) FROM '{}' WHERE line = 'L3' GROUP BY 1",
    "worst 20": "SELECT uri, margin, category, overlay_path FROM '{}' WHERE line = 'L3' AND margin IS NOT NULL "
    "ORDER BY margin DESC LIMIT 20",
    "all columns": "SELECT * FROM '{}' WHERE line = 'L3'",
}


@dataclass(frozen=True)
class Measured:
    """What a question took. rows: of its answer; requests: for ranges of the tables."""

    question: str
    rows: int
    seconds: float
    bytes: int
    requests: int

    def __str__(self) -> str:
        return (
            f"{self.question:<44} {self.rows:>9,} rows {self.seconds:>7.2f} s {self.bytes / 1e6:>8.2f} MB "
            f"{self.requests:>5} requests"
        )


def draw(output: str, rows: int, nights: int) -> None:
    """So many rows in nights of the same size, the last one on LAST; line L3 is worse in that."""
    for ago in reversed(range(nights)):
        louder = {} if ago else {"L3": 1.5}
        write_night(output, Night(str(LAST - timedelta(days=ago)), rows=rows // nights, louder=louder))


def questions() -> Iterator[tuple[str, str]]:
    """All of every view, one night and line of those that have both, and the recipes."""
    for view in VIEWS:
        yield f"{view}, counted", f"SELECT count(*) FROM {view}"
    for view in ("results", "failures", "worst_by_line", "nightly_rates", "heatmaps"):
        yield f"{view}, one line and night", f"SELECT * FROM {view} WHERE run_date = '{LAST}' AND line = 'L3'"
    _, _, text = README.read_text().partition("## Ten questions\n")
    for title, sql in re.findall(r"^\*\*(.+?)\*\*.*\n(?:.+\n)*\n((?:    .*\n)+)", text, re.MULTILINE):
        yield title[:44], textwrap.dedent(sql)


def measure(output: str) -> Iterator[Measured]:
    """Each question in a session of its own; before them what it takes to open one."""
    began = time.perf_counter()
    with open_session(output) as session:
        (answer,) = session.answers("SELECT count(*) FROM runs")
        runs = next(iter(answer.rows))[0]
    yield Measured("opening a session (runs)", runs, time.perf_counter() - began, 0, 0)
    for question, sql in questions():
        with open_session(output) as session:
            (answer,) = session.answers(sql)
            rows = sum(1 for _ in answer.rows)
            yield Measured(question, rows, answer.seconds, answer.reads.bytes, answer.reads.requests)


def row_groups(rows: int, work: Path) -> Iterator[str]:
    """What one line of one night reads, for each size and order; size of the file and its footer, seconds to write."""
    drawn = night_table(RunFolder(str(work), str(LAST), "audit"), Night(str(LAST), rows=rows))
    for order in ORDERS:
        table = drawn.sort_by([(column, "ascending") for column in order])
        for size in SIZES:
            began = time.perf_counter()
            with pq.ParquetWriter(work / "table.parquet", table.schema, compression="zstd") as writer:
                for batch in table.to_batches(max_chunksize=max(SIZES)):
                    writer.write_table(pa.Table.from_batches([batch]), row_group_size=size)
            seconds = time.perf_counter() - began
            footer = pq.read_metadata(work / "table.parquet").serialized_size
            total = (work / "table.parquet").stat().st_size
            told = [
                f"{','.join(order)} {size:>6,}: {total / 1e6:.1f} MB, footer {footer / 1e3:.0f} kB, {seconds:.1f} s"
            ]
            for name, sql in ONE_LINE.items():
                files = RangeFiles(str(work), "output")
                with duckdb.connect() as connection:
                    connection.register_filesystem(files)
                    connection.execute(sql.format("output://table.parquet")).fetchall()
                told.append(f"{name} {files.reads.bytes / 1e6:.2f} MB in {files.reads.requests}")
            yield " | ".join(told)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--output", help="where the nights are, or are drawn; a folder or s3:// prefix")
    parser.add_argument("--row-groups", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="query-") as folder:
        if asked.row_groups:
            for line in row_groups(asked.rows, Path(folder)):
                print(line, flush=True)
            return
        output = asked.output or os.path.join(folder, "out")
        draw(output, asked.rows, asked.nights)
        for measured in measure(output):
            print(measured, flush=True)


if __name__ == "__main__":
    main()
