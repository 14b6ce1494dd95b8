"""Nights of a plant: five of line audit, one of them twice, one that was not committed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.audit.record import RunFolder
from jobs.query.session import open_session
from jobs.storage import delete, read_bytes, write_bytes
from tests.nights import Night, write_night

LAST = "2026-03-14"


def write_plant(output: str) -> list[RunFolder]:
    """The committed runs, ascending; L3 is worse in the last night, whose batch went through with another recipe."""
    made = [write_night(output, Night(f"2026-03-{day}", rows=1200))[0] for day in (10, 11, 12, 13)]
    last = Night(LAST, rows=2400, louder={"L3": 1.6}, failed=0.02, pictures=5, more={"recipe": "R'7", "oven": 3})
    made.append(write_night(output, last)[0])
    made.append(write_night(output, Night(LAST, "second", rows=600, seed=1, more={"oven": "west"}))[0])
    lost, _ = write_night(output, Night("2026-03-15", rows=600))
    delete(lost.success)  # as a run that was killed between its publication and its commit
    _judge(made[-2])
    return made


def _judge(folder: RunFolder) -> None:
    """Verdicts on every third row of the queue."""
    queue = list(csv.DictReader(io.StringIO(read_bytes(folder.queue(1)).decode())))
    lines = [f"{row['image_id']},{'defective' if row['decision'] == 'anomalous' else 'good'}\n" for row in queue[::3]]
    write_bytes(folder.verdicts, ("image_id,verdict\n" + "".join(lines)).encode())


@pytest.fixture(scope="package")
def plant(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of an audit, in a folder whose name would be many things in SQL, in a pattern and in a partition."""
    output = str(tmp_path_factory.mktemp("plant") / "line=L9" / "it's 100%[a]*?{b}\n;--")
    write_plant(output)
    return output


def ask(output: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of the last statement."""
    with open_session(output) as session:
        return [list(answer.rows) for answer in session.answers(sql)][-1]


def table(output: str, run_id: str = f"{LAST}/audit") -> list[dict[str, Any]]:
    """The published rows of a run, read without any of the code under test."""
    run_date, _, name = run_id.partition("/")
    path = Path(output) / "results" / f"run_date={run_date}" / f"{name}.parquet"
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return rows
